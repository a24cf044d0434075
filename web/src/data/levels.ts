/** How bright a frame is: limits by percentile, a histogram, the sum within a box. From a sample, where a frame is large. */

import type { Numbers } from '../wire/messages';

const SAMPLE = 40_000;

export interface Levels {
  min: number;
  max: number;
  /** 0.5 and 99.8 percent: what is worth the colours. */
  low: number;
  high: number;
  histogram: number[];
}

export function levelsOf(cells: Numbers, isLog: boolean): Levels {
  const stride = Math.max(1, Math.floor(cells.length / SAMPLE) | 1);
  const sample = new Float64Array(Math.ceil(cells.length / stride));
  let count = 0;
  for (let i = 0; i < cells.length; i += stride) {
    const value = cells[i]!;
    if (Number.isFinite(value) && (!isLog || value > 0)) sample[count++] = value;
  }
  const sorted = sample.subarray(0, count).sort();
  if (!count) return { min: 0, max: 1, low: isLog ? 0.1 : 0, high: 1, histogram: [] };
  const min = sorted[0]!;
  const max = sorted[count - 1]!;
  let low = sorted[Math.floor(0.005 * (count - 1))]!;
  let high = sorted[Math.ceil(0.998 * (count - 1))]!;
  if (high <= low) [low, high] = [min, max > min ? max : min + 1];
  return { min, max, low, high, histogram: histogramOf(sorted, min, max) };
}

function histogramOf(sorted: Float64Array, min: number, max: number, bins = 64): number[] {
  const found = new Array<number>(bins).fill(0);
  const scale = max > min ? bins / (max - min) : 0;
  for (const value of sorted) found[Math.min(bins - 1, Math.floor((value - min) * scale))]! += 1;
  return found;
}

/** Columns and rows, ends not included. */
export type Box = [left: number, top: number, right: number, bottom: number];

export function meanWithin(cells: Numbers, width: number, [left, top, right, bottom]: Box): number {
  let sum = 0;
  for (let row = top; row < bottom; row++) for (let at = row * width + left, end = row * width + right; at < end; at++) sum += cells[at]!;
  return sum / ((right - left) * (bottom - top));
}
