/** Arrow files as columns: doubles where a column is numeric, else its values. Lives in the worker, with its library. */

import { tableFromIPC } from '@uwdata/flechette';
import type { Cells } from './messages';

/** An Arrow file: how many rows, and each column as doubles where it is numeric, else as values. */
export function columnsOf(payload: Uint8Array): { count: number; columns: Record<string, Cells> } {
  let table;
  // Within a message the file begins anywhere; its numbers want to begin at multiples of eight.
  const bytes = payload.byteOffset % 8 ? payload.slice() : payload;
  try {
    table = tableFromIPC(bytes, { useBigInt: false, useDate: false });
  } catch {
    table = tableFromIPC(bytes, { useBigInt: true, useDate: false }); // integers beyond 2^53: rounded below
  }
  const columns: Record<string, Cells> = {};
  for (const { name } of table.schema.fields) {
    const column = table.getChild(name);
    columns[name] = column ? cellsOfColumn(column.toArray() as ArrayLike<unknown>) : [];
  }
  return { count: table.numRows, columns };
}

function cellsOfColumn(values: ArrayLike<unknown>): Cells {
  if (ArrayBuffer.isView(values)) return new Float64Array(values as unknown as ArrayLike<number>);
  const numbers = new Float64Array(values.length);
  let isNumbers = false;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') {
      numbers[i] = Number(value);
      isNumbers = true;
    } else if (value === null || value === undefined) {
      numbers[i] = NaN;
    } else {
      return Array.from(values, plain);
    }
  }
  return isNumbers || values.length === 0 ? numbers : Array.from(values, plain);
}

/** What can be cloned to the page: vectors become lists. */
function plain(value: unknown): unknown {
  if (value === null || value === undefined || typeof value === 'string' || typeof value === 'number') return value ?? null;
  if (typeof value === 'bigint') return Number(value);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number>, Number);
  if (typeof value === 'object' && Symbol.iterator in value) return Array.from(value as Iterable<unknown>, plain);
  return typeof value === 'object' ? JSON.parse(JSON.stringify(value)) : value;
}
