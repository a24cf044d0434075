/**
 * Columns that grow: capacity doubles, readers get views, and memory has a bound.
 *
 * Beside the values stand minimum and maximum of each block of 64, kept while appending, so that a million points are drawn from
 * what a screen can show. Beyond `LIMIT` rows the oldest half is let go; `forgotten` says how many that were.
 */

import type { Cells } from '../wire/messages';

export const BLOCK = 64;
export const LIMIT = 1 << 21;

export class Column {
  values = new Float64Array(256);
  length = 0;
  /** No value is smaller than the one before: searches and decimation may rely on it. */
  ascending = true;
  low = new Float64Array(4);
  high = new Float64Array(4);

  append(cells: ArrayLike<number>): void {
    const first = this.length;
    const count = first + cells.length;
    if (count > this.values.length) this.grow(count);
    this.values.set(cells, first);
    this.length = count;
    this.note(first);
  }

  /** Put cells at a place; what lies between is unknown. */
  write(at: number, cells: ArrayLike<number>): void {
    const count = Math.max(this.length, at + cells.length);
    if (count > this.values.length) this.grow(count);
    if (at > this.length) this.values.fill(NaN, this.length, at);
    this.values.set(cells, at);
    const first = Math.min(at, this.length);
    this.length = count;
    this.note(first);
  }

  clear(): void {
    this.length = 0;
    this.ascending = true;
  }

  forget(count: number): void {
    this.values.copyWithin(0, count, this.length);
    this.length -= count;
    this.ascending = true;
    this.note(0);
  }

  view(): Float64Array {
    return this.values.subarray(0, this.length);
  }

  private grow(count: number): void {
    const capacity = Math.max(count, 2 * this.values.length);
    this.values = copied(this.values, this.length, capacity);
    const blocks = Math.ceil(capacity / BLOCK);
    this.low = copied(this.low, this.low.length, blocks);
    this.high = copied(this.high, this.high.length, blocks);
  }

  private note(first: number): void {
    const { values, length, low, high } = this;
    for (let i = Math.max(first, 1); this.ascending && i < length; i++) if (!(values[i]! >= values[i - 1]!)) this.ascending = false;
    for (let block = Math.floor(first / BLOCK); block * BLOCK < length; block++) {
      let least = Infinity;
      let most = -Infinity;
      for (let i = block * BLOCK, end = Math.min(i + BLOCK, length); i < end; i++) {
        const value = values[i]!;
        if (value < least) least = value;
        if (value > most) most = value;
      }
      low[block] = least;
      high[block] = most;
    }
  }
}

function copied(from: Float64Array, length: number, capacity: number): Float64Array<ArrayBuffer> {
  const to = new Float64Array(capacity);
  to.set(from.subarray(0, length));
  return to;
}

/** The columns of one table, all of the same length; those that are no numbers are lists of values. */
export class Rows {
  count = 0;
  forgotten = 0;
  readonly numbers = new Map<string, Column>();
  readonly others = new Map<string, unknown[]>();
  /** In the order of the table. */
  names: string[] = [];

  append(count: number, columns: Record<string, Cells>): void {
    for (const [name, cells] of Object.entries(columns)) this.column(name, cells);
    this.count += count;
    for (const column of this.numbers.values()) if (column.length < this.count) column.append(new Float64Array(this.count - column.length).fill(NaN));
    for (const values of this.others.values()) while (values.length < this.count) values.push(null);
    if (this.count > LIMIT) this.forget(this.count - LIMIT / 2);
  }

  clear(): void {
    this.count = this.forgotten = 0;
    this.numbers.clear();
    this.others.clear();
  }

  value(name: string, row: number): unknown {
    const column = this.numbers.get(name);
    return column ? column.values[row] : this.others.get(name)?.[row];
  }

  private column(name: string, cells: Cells): void {
    if (!this.names.includes(name)) this.names.push(name);
    const list = this.others.get(name);
    if (list) {
      for (const value of cells) list.push(value);
      return;
    }
    let column = this.numbers.get(name);
    if (ArrayBuffer.isView(cells)) {
      if (!column) this.numbers.set(name, (column = new Column()));
      column.append(cells as Float64Array);
      return;
    }
    // A column that held nothing but nulls so far turns out to hold no numbers.
    this.others.set(name, [...new Array(this.count).fill(null), ...cells]);
    this.numbers.delete(name);
  }

  private forget(count: number): void {
    for (const column of this.numbers.values()) column.forget(count);
    for (const values of this.others.values()) values.splice(0, count);
    this.count -= count;
    this.forgotten += count;
  }
}

/**
 * Where the first of `coming` stands among the last rows of `known`, or -1: where what was read and what is streamed overlap.
 * All columns that both have must be the same, as far as both go.
 */
export function locate(known: Rows, coming: Record<string, Cells>, count: number, window = 50_000): number {
  const names = Object.keys(coming).filter((name) => known.numbers.has(name) || known.others.has(name));
  if (!names.length || !count) return -1;
  for (let row = known.count - 1; row >= Math.max(0, known.count - window); row--) {
    const rows = Math.min(count, known.count - row);
    let same = true;
    for (let i = 0; same && i < rows; i++) same = names.every((name) => isSame(known.value(name, row + i), coming[name]![i]));
    if (same) return row;
  }
  return -1;
}

const isSame = (a: unknown, b: unknown): boolean =>
  Object.is(a, b) || (typeof a === 'object' && typeof b === 'object' && JSON.stringify(a) === JSON.stringify(b));
