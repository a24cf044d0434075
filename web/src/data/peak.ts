/** What a scan is taken for: where the peak is, its centre of mass, and its full width at half maximum. */

export interface Peak {
  max: number;
  at: number;
  /** Centre of mass above the least value. */
  com: number;
  /** Middle of the two half-height crossings; NaN if one of them is not there. */
  cen: number;
  fwhm: number;
}

const MOST = 20_000;

/** Null for fewer than three points, or where nothing rises. */
export function peakOf(x: ArrayLike<number>, y: ArrayLike<number>, count: number): Peak | null {
  if (count < 3 || count > MOST) return null;
  const order = [];
  for (let i = 0; i < count; i++) if (Number.isFinite(x[i]) && Number.isFinite(y[i])) order.push(i);
  if (order.length < 3) return null;
  order.sort((a, b) => x[a]! - x[b]!);
  let top = order[0]!;
  let least = Infinity;
  for (const i of order) {
    if (y[i]! > y[top]!) top = i;
    if (y[i]! < least) least = y[i]!;
  }
  const max = y[top]!;
  if (!(max > least)) return null;
  let mass = 0;
  let moment = 0;
  for (const i of order) {
    mass += y[i]! - least;
    moment += (y[i]! - least) * x[i]!;
  }
  const half = (max + least) / 2;
  const peak = order.indexOf(top);
  const left = crossing(x, y, order, peak, -1, half);
  const right = crossing(x, y, order, peak, 1, half);
  return { max, at: x[top]!, com: moment / mass, cen: (left + right) / 2, fwhm: right - left };
}

function crossing(x: ArrayLike<number>, y: ArrayLike<number>, order: number[], peak: number, step: number, half: number): number {
  for (let n = peak + step; n >= 0 && n < order.length; n += step) {
    const out = order[n]!;
    if (y[out]! > half) continue;
    const inner = order[n - step]!;
    const share = (y[inner]! - half) / (y[inner]! - y[out]!);
    return x[inner]! + share * (x[out]! - x[inner]!);
  }
  return NaN;
}
