/**
 * What is seen, as a few lines of Python for the stock client.
 *
 * No key is copied, for such lines are sent around; the client takes it from TILED_API_KEY, so that they run as they are.
 */

import { API, parameter } from '../net/address';
import type { Opened, Stream } from '../net/opened';
import { chosen } from './plot';

const text = (value: string): string => JSON.stringify(value);

export function asPython(opened: Opened, stream: Stream | null, tab: string): string {
  const lines = ['from tiled.client import from_uri', '', `client = from_uri(${text(API)})  # a key is taken from TILED_API_KEY`];
  const place = opened.path.map((key) => `[${text(key)}]`).join('');
  if (!stream) return [...lines, `node = client${place}`, 'print(node.metadata)'].join('\n');
  if (tab === 'meta') return [...lines, `run = client${place}`, 'print(run.metadata)'].join('\n');
  const below = stream.path.map((key) => `[${text(key)}]`).join('');
  if (tab === 'image') {
    const image = stream.images.find(({ key }) => key === parameter('img').value) ?? stream.images[0];
    if (!image) return lines.join('\n');
    const leading = image.structure.shape.length - 2;
    const frame = parameter('frame').value ?? new Array(leading).fill('-1').join(', ');
    return [...lines, `images = client${image.path.map((key) => `[${text(key)}]`).join('')}`, `frame = images${leading ? `[${frame.replaceAll(',', ', ')}]` : '.read()'}`].join('\n');
  }
  const { x, panes } = chosen(opened, stream);
  const names = [...new Set([x, ...panes.flat()])].filter(Boolean);
  const table = stream.tables[0];
  if (!table) return [...lines, `data = client${below}.read()`].join('\n');
  const isItself = table.path.length === stream.path.length;
  const lead = isItself ? `table = client${below}` : `table = client${below}.base[${text(table.key)}]`;
  const selection = tab === 'table' ? '' : `[${names.map(text).join(', ')}]`;
  const plot = tab === 'plot' && x && names.length > 1 ? [`data.plot(x=${text(x)}, y=[${names.filter((n) => n !== x).map(text).join(', ')}])`] : [];
  return [...lines, lead, `data = table.read(${selection})`, ...plot].join('\n');
}
