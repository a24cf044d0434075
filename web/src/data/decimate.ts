/**
 * From many points to what a canvas can show: per step along x the least and the greatest value.
 *
 * Only for ascending x; a scan that goes back and forth is drawn point by point, as it was taken.
 */

import { BLOCK, type Column } from './columns';

/** First index whose value is not below `x`, in ascending values. */
export function lowerBound(values: Float64Array, length: number, x: number): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle]! < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

export interface Extent {
  low: number;
  high: number;
}

/** Least and greatest of rows `from` to `to`; whole blocks are asked, not cells. `positive`: only values above 0 (for logarithms). */
export function extent(column: Column, from: number, to: number, positive = false): Extent {
  const { values, low, high } = column;
  let least = Infinity;
  let most = -Infinity;
  for (let i = from; i < to; ) {
    const block = i / BLOCK;
    if (i % BLOCK === 0 && i + BLOCK <= to && (!positive || low[block]! > 0)) {
      if (low[block]! < least) least = low[block]!;
      if (high[block]! > most) most = high[block]!;
      i += BLOCK;
      continue;
    }
    const value = values[i++]!;
    if (positive && value <= 0) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return { low: least, high: most };
}

/** Calls `line` for rows `from` to `to` with at most about four points per step; `steps` is the width in pixels. */
export function decimated(x: Column, y: Column, from: number, to: number, steps: number, line: (x: number, y: number) => void): void {
  const count = to - from;
  if (count <= 4 * steps) {
    for (let i = from; i < to; i++) line(x.values[i]!, y.values[i]!);
    return;
  }
  const size = count / steps;
  // Whole blocks where a step holds several of them: then cells need not be looked at.
  const stride = size >= 2 * BLOCK ? Math.round(size / BLOCK) * BLOCK : Math.ceil(size);
  const first = stride % BLOCK === 0 ? from - (from % BLOCK) : from;
  for (let start = first; start < to; start += stride) {
    const begin = Math.max(start, from);
    const end = Math.min(start + stride, to);
    const { low, high } = extent(y, begin, end);
    const at = x.values[begin]!;
    line(at, y.values[begin]!);
    if (low <= high) {
      line(at, low);
      line(at, high);
    }
    line(x.values[end - 1]!, y.values[end - 1]!);
  }
}
