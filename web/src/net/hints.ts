/** What a scan says of itself: which motors it moves, which detectors are worth a look, and in which units. */

import type { Entry } from './catalog';
import type { Stream } from './opened';

/** Motors of the run's dimensions that live in this stream, outermost first. */
export function motorsOf(entry: Entry | null, stream: Stream): string[] {
  const start = entry?.metadata.start ?? {};
  const dimensions = start.hints?.dimensions as [string[], string][] | undefined;
  const hinted = (dimensions ?? []).filter(([, name]) => name === stream.name).flatMap(([fields]) => fields);
  return hinted.length ? hinted : ((start.motors as string[] | undefined) ?? []);
}

/** Hinted fields of the detectors, in the order of the devices. */
export function detectorsOf(entry: Entry | null, stream: Stream): string[] {
  const hints = (stream.metadata.hints ?? {}) as Record<string, { fields?: string[] }>;
  const motors = new Set(motorsOf(entry, stream));
  return Object.values(hints)
    .flatMap(({ fields }) => fields ?? [])
    .filter((name) => !motors.has(name));
}

export function unitOf(stream: Stream, name: string): string {
  const unit = stream.metadata.data_keys?.[name]?.units;
  return typeof unit === 'string' ? unit : '';
}

/** Columns that accompany others. */
export const isMinor = (name: string): boolean => name.startsWith('ts_') || name === 'time' || name === 'seq_num';

/** x by default: the first motor, else the sequence; an outer motor of a grid gives no line. */
export function defaultX(entry: Entry | null, stream: Stream, names: string[]): string {
  const motor = motorsOf(entry, stream).at(-1);
  return motor && names.includes(motor) ? motor : names.includes('seq_num') && names.length > 1 ? 'seq_num' : '';
}

/** y by default: the hinted detectors, each in a pane, four at most; else what is there. */
export function defaultY(entry: Entry | null, stream: Stream, names: string[], x: string): string[][] {
  const hinted = detectorsOf(entry, stream).filter((name) => names.includes(name) && name !== x);
  const found = hinted.length ? hinted : names.filter((name) => !isMinor(name) && name !== x).slice(0, 2);
  const chosen = found.length ? found : names.filter((name) => name !== x).slice(0, 1);
  return chosen.length <= 4 ? chosen.map((name) => [name]) : [chosen.slice(0, 6)];
}
