/** Payloads of arrays as numbers, by data type. */

import type { DataType, Numbers } from './messages';

const NARROW = {
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i1: Int8Array,
  i2: Int16Array,
  i4: Int32Array,
  f4: Float32Array,
  f8: Float64Array,
  b1: Uint8Array,
} as const;

const LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** True if cells of this type are numbers that can be drawn. */
export function isNumeric(type: DataType | null | undefined): boolean {
  return !!type && 'biuf'.includes(type.kind) && (`${type.kind}${type.itemsize}` in NARROW || type.itemsize === 8 || type.itemsize === 2);
}

/** The cells of a payload, in memory of their own. 64-bit integers become doubles, halves become singles. */
export function cellsOf(type: DataType, bytes: Uint8Array): Numbers {
  const size = type.itemsize;
  const own = bytes.slice();
  if (size > 1 && (type.endianness === 'big') === LITTLE) swap(own, size);
  const name = `${type.kind}${size}` as keyof typeof NARROW;
  if (name in NARROW) return new NARROW[name](own.buffer);
  if (size === 8) return Float64Array.from(type.kind === 'u' ? new BigUint64Array(own.buffer) : new BigInt64Array(own.buffer), Number);
  return Float32Array.from(new Uint16Array(own.buffer), half);
}

function swap(bytes: Uint8Array, size: number): void {
  for (let at = 0; at + size <= bytes.length; at += size) bytes.subarray(at, at + size).reverse();
}

/** IEEE 754 binary16. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
