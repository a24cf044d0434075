/**
 * Frames of an array: the newest one as it comes, any other one when it is asked for.
 *
 * The stream may be faster than eyes: frames that were passed over are counted, not kept. An array in two dimensions is one frame
 * that grows; one with more has a frame for each index of the leading axes.
 */

import { signal } from '@preact/signals';
import { arrived, subscribe } from '../wire/client';
import { cellsOf } from '../wire/cells';
import type { BlockEvent, Numbers } from '../wire/messages';
import { urlOf } from './address';
import { shapeAfter, type Known } from './opened';
import { getBytes } from './rest';

export interface Picture {
  cells: Numbers;
  width: number;
  height: number;
  /** Index along the leading axes. */
  index: number[];
  /** Every n-th pixel only, where a frame is larger than what can be drawn. */
  step: number;
  sequence: number;
}

/** Longest side of what is drawn. */
const LONGEST = 4096;
const TIMES_A_SECOND = 25;

export class Frames {
  readonly picture = signal<Picture | null>(null);
  readonly shape = signal<number[]>([]);
  readonly error = signal('');
  readonly isLive = signal(true);
  shown = 0;
  skipped = 0;
  private wanted: number[] | null = null;
  private isAsking = false;
  private isStale = false;
  private leave: () => void;

  constructor(
    readonly node: Known,
    index: number[] | null,
  ) {
    this.shape.value = node.structure.shape;
    this.wanted = index;
    const step = this.step();
    this.leave = subscribe(
      node.path,
      { start: null, max_hz: TIMES_A_SECOND, ...(step > 1 && this.shape.value.length > 2 ? { slice: this.stepped(step) } : {}) },
      (event) => {
        if (event.kind === 'block') this.take(event);
        if (event.kind === 'ended' || event.kind === 'deleted') this.isLive.value = false;
        if (event.kind === 'gap' || event.kind === 'subscribed') this.ask();
        if (event.kind === 'error') {
          this.isLive.value = false;
          this.ask();
        }
      },
    );
  }

  stop(): void {
    this.leave();
  }

  /** Null: follow the newest. */
  show(index: number[] | null): void {
    if (String(index) === String(this.wanted) && (index === null) === (this.wanted === null)) return;
    this.wanted = index;
    this.ask();
  }

  get leading(): number[] {
    return this.shape.value.slice(0, -2);
  }

  private step(): number {
    return Math.max(1, Math.ceil(Math.max(...this.shape.value.slice(-2)) / LONGEST));
  }

  private stepped(step: number): string {
    return [...this.leading.slice(1).map(() => ':'), `::${step}`, `::${step}`].join();
  }

  private newest(): number[] {
    return this.leading.map((length) => Math.max(0, length - 1));
  }

  private take(event: BlockEvent): void {
    this.skipped += event.skipped;
    arrived(event);
    this.shape.value = event.full ?? shapeAfter(this.shape.value, event);
    if (this.wanted !== null) return;
    const shape = this.shape.value;
    const step = this.step();
    const [height, width] = [Math.ceil(shape.at(-2)! / step), Math.ceil(shape.at(-1)! / step)];
    const isWhole = shape.length > 2 && event.shape.at(-2) === height && event.shape.at(-1) === width;
    if (!event.cells || !isWhole || event.block) return this.ask();
    const size = width * height;
    const cells = event.cells.length === size ? event.cells : (event.cells.slice(-size) as Numbers);
    const lead = event.shape.slice(0, -2);
    const index = this.leading.map((_, axis) => (event.offset?.[axis] ?? 0) + (lead[axis] ?? 1) - 1);
    this.put({ cells, width, height, index, step, sequence: event.sequence });
  }

  private put(picture: Picture): void {
    this.shown += 1;
    this.error.value = '';
    this.picture.value = picture;
  }

  /** Over HTTP, one at a time; what was wanted meanwhile is asked for afterwards. */
  private ask(): void {
    if (this.isAsking) {
      this.isStale = true;
      return;
    }
    this.isAsking = true;
    this.isStale = false;
    this.fetch()
      .catch((error: Error) => (this.error.value = error.message))
      .finally(() => {
        this.isAsking = false;
        if (this.isStale) this.ask();
      });
  }

  private async fetch(): Promise<void> {
    const shape = this.shape.value;
    if (shape.some((length) => length === 0)) return;
    const index = (this.wanted ?? this.newest()).map((at, axis) => Math.max(0, Math.min(at, shape[axis]! - 1)));
    const step = this.step();
    const slice = [...index, `::${step}`, `::${step}`].join();
    const type = 'application/octet-stream';
    const bytes = await getBytes(`/array/full/${urlOf(this.node.path)}?slice=${slice}`, type);
    const [height, width] = [Math.ceil(shape.at(-2)! / step), Math.ceil(shape.at(-1)! / step)];
    const cells = cellsOf(this.node.structure.data_type, bytes);
    // A frame that grows may have grown between its shape and its cells.
    const rows = Math.floor(cells.length / width);
    if (rows > 0) this.put({ cells, width, height: rows === height ? height : rows, index, step, sequence: 0 });
  }
}
