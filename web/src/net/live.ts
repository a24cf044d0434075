/**
 * Which runs of the list are live, and how fast their points come.
 *
 * Every run that has no stop document and is not too old is followed by its headers alone: nothing of its data is sent for that.
 */

import { effect, signal } from '@preact/signals';
import { subscribe } from '../wire/client';
import { entries, isRun, type Entry } from './catalog';

export interface Activity {
  /** Milliseconds since 1970; 0: nothing was heard yet. */
  last: number;
  rate: number;
  points: number;
}

const MOST = 12;
/** A run without stop document from which nothing came for so long was probably broken off. */
const SILENT_SECONDS = 120;
const WINDOW = 3000;

export const activities = signal(new Map<string, Activity>());

interface Watched {
  leave: () => void;
  counts: [time: number, points: number][];
  last: number;
  points: number;
}

const watched = new Map<string, Watched>();

export const hasEnded = (entry: Entry): boolean => !!entry.metadata.stop;

/** Live: not stopped, and something came of it lately. */
export function isLive(entry: Entry): boolean {
  if (!isRun(entry) || hasEnded(entry)) return false;
  const heard = activities.value.get(entry.path.join('/'))?.last ?? 0;
  const begun = Number(entry.metadata.start?.time ?? 0) * 1000;
  return Date.now() - Math.max(heard, begun) < SILENT_SECONDS * 1000;
}

function watch(entry: Entry): void {
  const mine: Watched = { leave: () => {}, counts: [], last: 0, points: 0 };
  mine.leave = subscribe(entry.path, { start: null, subtree: true, payload: false }, (event) => {
    if (event.kind === 'rows' || event.kind === 'block' || event.kind === 'child') mine.last = Date.now();
    if (event.kind !== 'rows') return;
    mine.points += event.count;
    mine.counts.push([Date.now(), event.count]);
  });
  watched.set(entry.path.join('/'), mine);
}

function look(): void {
  const now = Date.now();
  const next = new Map<string, Activity>();
  for (const [name, { counts, last, points }] of watched) {
    while (counts.length && counts[0]![0] < now - WINDOW) counts.shift();
    const rate = counts.reduce((sum, [, count]) => sum + count, 0) / (WINDOW / 1000);
    next.set(name, { last, rate, points });
  }
  activities.value = next;
}

export function startLive(): void {
  effect(() => {
    const open = entries.value.filter((entry) => isRun(entry) && !hasEnded(entry)).slice(0, MOST);
    const wanted = new Set(open.map(({ path }) => path.join('/')));
    for (const [name, { leave }] of watched) {
      if (wanted.has(name)) continue;
      leave();
      watched.delete(name);
    }
    for (const entry of open) if (!watched.has(entry.path.join('/'))) watch(entry);
  });
  setInterval(look, 1000);
}
