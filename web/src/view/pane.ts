/**
 * One pane of a plot: axes, zoom and cursor are uPlot's, lines are drawn here.
 *
 * uPlot takes x to be ascending; a motor that goes back and forth is not. So the lines are ours: in the order in which the points
 * were taken, decimated where that is possible, from the columns themselves and without a copy.
 */

import uPlot from 'uplot';
import type { Column } from '../data/columns';
import { decimated, extent, lowerBound } from '../data/decimate';

export interface Line {
  label: string;
  x: Column;
  y: Column;
  color: string;
  /** Rows to draw; the rest came while the view was paused. */
  count: number;
  /** Of the run before: drawn faintly, without read-out. */
  isGhost: boolean;
}

export interface PaneView {
  lines: Line[];
  range: [number, number] | null;
  isLog: boolean;
  isTime: boolean;
  isLive: boolean;
  xLabel: string;
  yLabel: string;
}

export interface PaneHandlers {
  onZoom(range: [number, number] | null): void;
  /** Row under the cursor; null: it left. */
  onCursor(row: number | null): void;
}

const MOST_UNSORTED = 200_000;

export class Pane {
  private plot: uPlot | null = null;
  private view: PaneView | null = null;
  private shape = '';
  /** What was drawn last: tests compare it with the data. */
  drawn = { points: 0, ghosts: 0, x: [0, 0], y: [0, 0] };

  constructor(
    private readonly host: HTMLElement,
    private readonly handlers: PaneHandlers,
  ) {}

  destroy(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  draw(view: PaneView): void {
    this.view = view;
    const width = this.host.clientWidth;
    const height = this.host.clientHeight;
    if (width < 40 || height < 40) return;
    const style = getComputedStyle(this.host);
    const shape = JSON.stringify([view.lines.map((l) => [l.label, l.color, l.isGhost]), view.isLog, view.isTime, view.xLabel, view.yLabel, style.color]);
    if (shape !== this.shape || !this.plot) {
      this.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.options(view, width, height, style), this.data(view), this.host);
    }
    if (this.plot.width !== width || this.plot.height !== height) this.plot.setSize({ width, height });
    const x = this.xRange(view);
    const y = this.yRange(view, x);
    const ghosts = view.lines.filter((line) => line.isGhost && line.count).length;
    this.drawn = { points: view.lines.find((line) => !line.isGhost)?.count ?? 0, ghosts, x, y };
    this.plot.batch((plot: uPlot) => {
      plot.setData(this.data(view), false);
      plot.setScale('x', { min: x[0], max: x[1] });
      plot.setScale('y', { min: y[0], max: y[1] });
    });
  }

  /** Where a point is on the canvas, in its own pixels: for tests that look at the picture. */
  pixelOf(x: number, y: number): [number, number] | null {
    return this.plot && [this.plot.valToPos(x, 'x', true), this.plot.valToPos(y, 'y', true)];
  }

  private data(view: PaneView): uPlot.AlignedData {
    const first = view.lines.find((line) => !line.isGhost);
    if (!first) return [[]];
    const shown = view.lines.filter((line) => !line.isGhost);
    return [first.x.values.subarray(0, first.count), ...shown.map((line) => line.y.values.subarray(0, first.count))] as uPlot.AlignedData;
  }

  private options(view: PaneView, width: number, height: number, style: CSSStyleDeclaration): uPlot.Options {
    const color = (name: string): string => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color('--dim'),
      font: `12px ${style.fontFamily}`,
      labelFont: `12px ${style.fontFamily}`,
      labelSize: 20,
      labelGap: 0,
      grid: { stroke: color('--grid'), width: 1 },
      ticks: { stroke: color('--grid'), width: 1, size: 4 },
    };
    const series = view.lines.filter((line) => !line.isGhost).map(({ label, color: stroke }) => ({ label, stroke, paths: () => null, points: { show: false } }));
    return {
      width,
      height,
      legend: { show: false },
      padding: [10, 14, 0, 0],
      scales: { x: { time: view.isTime, auto: false }, y: { auto: false, distr: view.isLog ? 3 : 1 } },
      axes: [
        { ...axis, label: view.xLabel, size: 34 },
        { ...axis, label: view.yLabel, size: 62 },
      ],
      series: [{}, ...series] as uPlot.Series[],
      cursor: {
        sync: { key: 'panes', setSeries: false },
        drag: { x: true, y: false, setScale: false },
        dataIdx: (plot, _series, _closest, x) => this.nearest(plot, x),
        points: { size: 9, width: 2, fill: color('--panel') },
        bind: {
          dblclick: () => () => {
            this.handlers.onZoom(null);
            return null;
          },
        },
      },
      hooks: {
        draw: [(plot) => this.paint(plot, color('--panel'))],
        setCursor: [(plot) => this.handlers.onCursor(plot.cursor.left! < 0 ? null : (plot.cursor.idxs?.[1] ?? null))],
        setSelect: [
          (plot) => {
            const { left, width: wide } = plot.select;
            if (wide < 4) return;
            this.handlers.onZoom([plot.posToVal(left, 'x'), plot.posToVal(left + wide, 'x')]);
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
      },
    };
  }

  private nearest(_plot: uPlot, x: number): number | null {
    const line = this.view?.lines.find((l) => !l.isGhost);
    if (!line || !line.count) return null;
    const { values, ascending } = line.x;
    if (ascending) {
      const after = lowerBound(values, line.count, x);
      if (after === 0) return 0;
      return after === line.count || x - values[after - 1]! < values[after]! - x ? after - 1 : after;
    }
    let best = 0;
    for (let i = 1; i < line.count; i++) if (Math.abs(values[i]! - x) < Math.abs(values[best]! - x)) best = i;
    return best;
  }

  private xRange(view: PaneView): [number, number] {
    if (view.range) return view.range;
    let low = Infinity;
    let high = -Infinity;
    for (const { x, count } of view.lines) {
      if (!count) continue;
      const found = x.ascending ? { low: x.values[0]!, high: x.values[count - 1]! } : extent(x, 0, count);
      low = Math.min(low, found.low);
      high = Math.max(high, found.high);
    }
    if (!(low <= high)) return [0, 1];
    const margin = high > low ? 0.01 * (high - low) : Math.abs(low) * 0.01 || 0.5;
    return [low - margin, high + margin];
  }

  private yRange(view: PaneView, [from, to]: [number, number]): [number, number] {
    let low = Infinity;
    let high = -Infinity;
    for (const line of view.lines) {
      const [begin, end] = rowsWithin(line, from, to);
      const found = line.x.ascending || !view.range ? extent(line.y, begin, end, view.isLog) : extentWithin(line, from, to, view.isLog);
      low = Math.min(low, found.low);
      high = Math.max(high, found.high);
    }
    if (!(low <= high)) return view.isLog ? [0.1, 10] : [0, 1];
    if (view.isLog) return low === high ? [low / 2, high * 2] : [low / 1.3, high * 1.3];
    const margin = high > low ? 0.06 * (high - low) : Math.abs(low) * 0.1 || 1;
    return [low - margin, high + margin];
  }

  private paint(plot: uPlot, background: string): void {
    const view = this.view;
    const { min, max } = plot.scales.x!;
    const { min: low, max: high } = plot.scales.y!;
    if (!view || min == null || max == null || low == null || high == null) return;
    const { left, top, width, height } = plot.bbox;
    const { ctx } = plot;
    const log = view.isLog ? Math.log10 : (value: number): number => value;
    const xScale = width / (max - min);
    const yScale = height / (log(high) - log(low));
    const bottom = top + height;
    const base = log(low);
    const xOf = (x: number): number => left + (x - min) * xScale;
    const yOf = (y: number): number => bottom - (log(y) - base) * yScale;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    ctx.lineJoin = 'round';
    for (const line of view.lines) this.stroke(ctx, line, { xOf, yOf, width, from: min, to: max, isLive: view.isLive, background });
    ctx.restore();
  }

  private stroke(
    ctx: CanvasRenderingContext2D,
    line: Line,
    at: { xOf(x: number): number; yOf(y: number): number; width: number; from: number; to: number; isLive: boolean; background: string },
  ): void {
    const { xOf, yOf } = at;
    const scale = devicePixelRatio;
    const path = new Path2D();
    const dots = new Path2D();
    const [begin, end] = line.x.ascending ? rowsWithin(line, at.from, at.to, 1) : [Math.max(0, line.count - MOST_UNSORTED), line.count];
    const hasDots = !line.isGhost && end - begin < at.width / (7 * scale);
    let isPen = false;
    const radius = 2.6 * scale;
    const add = (x: number, y: number): void => {
      const px = xOf(x);
      const py = yOf(y);
      if (!Number.isFinite(px) || !Number.isFinite(py)) {
        isPen = false;
        return;
      }
      if (isPen) path.lineTo(px, py);
      else path.moveTo(px, py);
      isPen = true;
      if (hasDots) {
        dots.moveTo(px + radius, py);
        dots.arc(px, py, radius, 0, 2 * Math.PI);
      }
    };
    if (line.x.ascending) decimated(line.x, line.y, begin, end, Math.ceil(at.width / scale), add);
    else for (let i = begin; i < end; i++) add(line.x.values[i]!, line.y.values[i]!);
    ctx.globalAlpha = line.isGhost ? 0.45 : 1;
    ctx.setLineDash(line.isGhost ? [5 * scale, 4 * scale] : []);
    ctx.lineWidth = (line.isGhost ? 1.2 : 1.7) * scale;
    ctx.strokeStyle = ctx.fillStyle = line.color;
    ctx.stroke(path);
    ctx.setLineDash([]);
    if (hasDots) ctx.fill(dots);
    if (at.isLive && !line.isGhost && line.count) this.head(ctx, xOf(line.x.values[line.count - 1]!), yOf(line.y.values[line.count - 1]!), at.background);
    ctx.globalAlpha = 1;
  }

  /** The newest point, so that eyes find it. */
  private head(ctx: CanvasRenderingContext2D, x: number, y: number, background: string): void {
    if (!Number.isFinite(x) || !Number.isFinite(y)) return;
    ctx.beginPath();
    ctx.arc(x, y, 5.5 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.fill();
    ctx.strokeStyle = background;
    ctx.stroke();
  }
}

/** Rows of an ascending line between two x, `beyond` more on each side so that lines go on to the edge. */
function rowsWithin({ x, count }: Line, from: number, to: number, beyond = 0): [number, number] {
  if (!x.ascending) return [0, count];
  const begin = lowerBound(x.values, count, from);
  let end = lowerBound(x.values, count, to);
  while (end < count && x.values[end] === to) end++;
  return [Math.max(0, begin - beyond), Math.min(count, end + beyond)];
}

function extentWithin({ x, y, count }: Line, from: number, to: number, positive: boolean): { low: number; high: number } {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < count; i++) {
    const value = y.values[i]!;
    if (x.values[i]! < from || x.values[i]! > to || (positive && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { low, high };
}
