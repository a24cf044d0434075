/**
 * Images: the newest frame as it comes, or the one that the sliders say; colours, levels, a box whose mean is traced.
 *
 * In the address: `img` (which array), `frame` (indices; absent: the newest), `cmap`, `invert`, `ilog`, `levels` (low,high; absent:
 * by percentile), `roi` (left,top,right,bottom).
 */

import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { Column } from '../data/columns';
import { forget, redraw } from '../data/frames';
import { levelsOf, meanWithin, type Box, type Levels } from '../data/levels';
import { go, parameter } from '../net/address';
import { Frames, type Picture } from '../net/frames';
import type { Known, Opened, Stream } from '../net/opened';
import { COLORMAPS, table } from './colormaps';
import { painterFor, type Painter } from './painter';
import { Pane } from './pane';
import { Button, Empty, Select, short } from './parts';
import { colors, theme } from './theme';

/** What is open, for tests and for the keyboard. */
export const shownFrames: { current: Frames | null; painter: Painter | null } = { current: null, painter: null };

const numbers = (value: string | null): number[] | null => (value ? value.split(',').map(Number) : null);

export function ImageView({ stream }: { opened: Opened; stream: Stream }) {
  const wanted = parameter('img').value;
  const node = stream.images.find(({ key }) => key === wanted) ?? stream.images[0];
  if (!node) return <Empty title="No images">Arrays in two dimensions or more are shown here.</Empty>;
  return <Images key={node.path.join('/')} node={node} all={stream.images} />;
}

function Images({ node, all }: { node: Known; all: Known[] }) {
  const frame = numbers(parameter('frame').value);
  const frames = useMemo(() => new Frames(node, frame), []);
  useEffect(() => {
    shownFrames.current = frames;
    return () => {
      shownFrames.current = null;
      frames.stop();
    };
  }, []);
  useEffect(() => frames.show(frame), [String(frame)]);
  const shape = frames.shape.value;
  const leading = shape.slice(0, -2);
  const picture = frames.picture.value;
  const index = frame ?? picture?.index ?? leading.map((n) => Math.max(0, n - 1));
  const isLog = parameter('ilog').value === '1';
  const manual = numbers(parameter('levels').value);
  const found = useMemo(() => (picture ? levelsOf(picture.cells, isLog) : null), [picture, isLog]);
  const levels: [number, number] = manual ? [manual[0]!, manual[1]!] : found ? [found.low, found.high] : [0, 1];
  const cmap = parameter('cmap').value ?? 'viridis';
  const isInverted = parameter('invert').value === '1';
  const setLevel = (place: 0 | 1, value: string): void => {
    if (Number.isFinite(Number(value)) && value !== '') go({ levels: levels.map((old, i) => (i === place ? Number(value) : Number(old.toPrecision(6)))).join() });
  };
  return (
    <div class="plot images">
      <div class="bar">
        {all.length > 1 && (
          <Select label="image" value={node.key} options={all.map(({ key }) => [key, key])} onChange={(value) => go({ img: value, frame: null, roi: null })} />
        )}
        <Select label="colours" value={cmap} options={COLORMAPS.map((name) => [name, name])} onChange={(value) => go({ cmap: value === 'viridis' ? null : value })} />
        <Button isOn={isInverted} onClick={() => go({ invert: isInverted ? null : '1' })} title="Invert the colours (i)">
          invert
        </Button>
        <Button isOn={isLog} onClick={() => go({ ilog: isLog ? null : '1', levels: null })} title="Logarithmic colours (l)">
          log
        </Button>
        <label class="field">
          <span>levels</span>
          <input class="number" aria-label="Lowest level" value={short(levels[0], 4)} onChange={(event) => setLevel(0, event.currentTarget.value)} />
          <input class="number" aria-label="Highest level" value={short(levels[1], 4)} onChange={(event) => setLevel(1, event.currentTarget.value)} />
        </label>
        {found && <Histogram levels={found} low={levels[0]} high={levels[1]} />}
        <Button isOn={!manual} onClick={() => go({ levels: manual ? null : levels.map((n) => n.toPrecision(6)).join() })} title="Levels by percentile of each frame (a)">
          auto
        </Button>
        <span class="grow" />
        {leading.length > 0 && (
          <Button
            isOn={frame === null}
            onClick={() => go({ frame: frame === null ? index.join() : null })}
            title="Follow the newest frame, or stay at this one (space)"
          >
            {frame === null ? '❚❚ newest' : '▶ newest'}
          </Button>
        )}
      </div>
      {frames.error.value && <p class="warning">{frames.error.value}</p>}
      {leading.map((length, axis) => (
        <label class="slider" key={axis}>
          <span>{leading.length > 1 ? `axis ${axis}` : 'frame'}</span>
          <input
            type="range"
            min={0}
            max={Math.max(0, length - 1)}
            value={Math.min(index[axis] ?? 0, Math.max(0, length - 1))}
            onInput={(event) => go({ frame: index.map((old, i) => (i === axis ? Number(event.currentTarget.value) : old)).join() })}
          />
          <output>
            {index[axis] ?? 0} of {length}
          </output>
        </label>
      ))}
      {picture ? (
        <Viewer picture={picture} frames={frames} look={{ low: levels[0], high: levels[1], isLog, cmap, isInverted }} />
      ) : (
        <Empty title={shape.includes(0) ? 'No frame yet' : 'Reading …'} />
      )}
    </div>
  );
}

function Histogram({ levels, low, high }: { levels: Levels; low: number; high: number }) {
  const most = Math.max(1, ...levels.histogram.map((n) => Math.log1p(n)));
  const at = (value: number): number => Math.max(0, Math.min(1, (value - levels.min) / (levels.max - levels.min || 1))) * 128;
  return (
    <svg class="histogram" viewBox="0 0 128 24" role="img" aria-label={`Values from ${short(levels.min)} to ${short(levels.max)}`}>
      <path d={levels.histogram.map((n, i) => `M${2 * i + 1} 24V${24 - (23 * Math.log1p(n)) / most}`).join('')} />
      <path class="limits" d={`M${at(low)} 0V24M${at(high)} 0V24`} />
    </svg>
  );
}

interface Look {
  low: number;
  high: number;
  isLog: boolean;
  cmap: string;
  isInverted: boolean;
}

function Viewer({ picture, frames, look }: { picture: Picture; frames: Frames; look: Look }) {
  const host = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const marker = useRef<HTMLDivElement>(null);
  const painter = useRef<Painter | null>(null);
  const uploaded = useRef<Picture | null>(null);
  /** Zoom 1 fits; `x` and `y`: what lies in the middle, as a share of the frame. */
  const view = useRef({ zoom: 1, x: 0.5, y: 0.5 });
  const pixel = useSignal<[number, number] | null>(null);
  const colorTable = useMemo(() => table(look.cmap, look.isInverted), [look.cmap, look.isInverted]);
  const roi = numbers(parameter('roi').value) as Box | null;

  const place = (): { left: number; top: number; scale: number } => {
    const { clientWidth: width, clientHeight: height } = host.current!;
    const fit = Math.min(width / picture.width, height / picture.height);
    const scale = fit * view.current.zoom;
    return { scale, left: width / 2 - view.current.x * picture.width * scale, top: height / 2 - view.current.y * picture.height * scale };
  };
  const draw = useRef(() => {});
  draw.current = () => {
    if (!host.current || !canvas.current) return;
    painter.current ??= shownFrames.painter = painterFor(canvas.current, parameter('plain').peek() === '1');
    const { clientWidth, clientHeight } = host.current;
    const ratio = devicePixelRatio;
    if (canvas.current.width !== Math.round(clientWidth * ratio)) canvas.current.width = Math.round(clientWidth * ratio);
    if (canvas.current.height !== Math.round(clientHeight * ratio)) canvas.current.height = Math.round(clientHeight * ratio);
    if (uploaded.current !== picture) painter.current.upload(picture);
    uploaded.current = picture;
    const { left, top, scale } = place();
    const low = look.isLog ? Math.max(look.low, 1e-30) : look.low;
    painter.current.draw({ low, high: look.high, isLog: look.isLog, table: colorTable, left: left * ratio, top: top * ratio, scale: scale * ratio });
    const box = marker.current!;
    box.hidden = !roi;
    if (roi) {
      box.style.left = `${left + roi[0] * scale}px`;
      box.style.top = `${top + roi[1] * scale}px`;
      box.style.width = `${(roi[2] - roi[0]) * scale}px`;
      box.style.height = `${(roi[3] - roi[1]) * scale}px`;
    }
  };
  const run = useMemo(() => () => draw.current(), []);
  useEffect(() => redraw(run));
  useEffect(() => {
    const observer = new ResizeObserver(() => redraw(run));
    observer.observe(host.current!);
    return () => {
      observer.disconnect();
      forget(run);
      painter.current?.destroy();
    };
  }, []);

  const under = (event: MouseEvent): [number, number] => {
    const bounds = host.current!.getBoundingClientRect();
    const { left, top, scale } = place();
    return [(event.clientX - bounds.left - left) / scale, (event.clientY - bounds.top - top) / scale];
  };
  const held = useRef<{ at: [number, number]; isBox: boolean } | null>(null);
  const onDown = (event: PointerEvent): void => {
    held.current = { at: under(event), isBox: event.shiftKey };
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
  };
  const onMove = (event: PointerEvent): void => {
    const [x, y] = under(event);
    const isInside = x >= 0 && y >= 0 && x < picture.width && y < picture.height;
    pixel.value = isInside ? [Math.floor(x), Math.floor(y)] : null;
    if (!held.current) return;
    if (held.current.isBox) {
      const within = (value: number, most: number): number => Math.max(0, Math.min(most, Math.round(value)));
      const xs = [held.current.at[0], x].map((n) => within(n, picture.width)).sort((a, b) => a - b);
      const ys = [held.current.at[1], y].map((n) => within(n, picture.height)).sort((a, b) => a - b);
      if (xs[1]! > xs[0]! && ys[1]! > ys[0]!) go({ roi: [xs[0], ys[0], xs[1], ys[1]].join() });
    } else {
      view.current.x -= (x - held.current.at[0]) / picture.width;
      view.current.y -= (y - held.current.at[1]) / picture.height;
      redraw(run);
    }
  };
  const onWheel = (event: WheelEvent): void => {
    event.preventDefault();
    const [x, y] = under(event);
    const factor = Math.exp(-event.deltaY / 400);
    const zoom = Math.max(1, Math.min(200, view.current.zoom * factor));
    const ratio = view.current.zoom / zoom;
    view.current = {
      zoom,
      x: zoom === 1 ? 0.5 : x / picture.width + (view.current.x - x / picture.width) * ratio,
      y: zoom === 1 ? 0.5 : y / picture.height + (view.current.y - y / picture.height) * ratio,
    };
    redraw(run);
  };
  useEffect(() => {
    const element = host.current!;
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  });
  const at = pixel.value;
  return (
    <>
      <div
        class="viewer"
        ref={host}
        onPointerDown={onDown}
        onPointerMove={onMove}
        onPointerUp={() => (held.current = null)}
        onPointerLeave={() => (pixel.value = null)}
        onDblClick={() => {
          view.current = { zoom: 1, x: 0.5, y: 0.5 };
          redraw(run);
        }}
      >
        <canvas ref={canvas} role="img" aria-label={`Frame ${picture.index.join(', ')}, ${picture.width} × ${picture.height} pixels`} />
        <div class="roi" ref={marker} hidden />
        <output class="pixel">
          {at ? (
            <>
              x {at[0] * picture.step} y {at[1] * picture.step} <b>{short(picture.cells[at[1] * picture.width + at[0]])}</b>
            </>
          ) : (
            <>
              {picture.width * picture.step} × {picture.height * picture.step}
              {picture.step > 1 && `, every ${picture.step}.`} · shift-drag: box · wheel: zoom
            </>
          )}
        </output>
      </div>
      {roi && <Trace frames={frames} roi={roi} />}
    </>
  );
}

/** Means by frame, in the order of the frames, in whichever order they were looked at. */
class Traced {
  x = new Column();
  y = new Column();
  last: Picture | null = null;
  private readonly means = new Map<number, number>();

  note(index: number, mean: number): void {
    const isNext = !this.x.length || index > this.x.values[this.x.length - 1]!;
    this.means.set(index, mean);
    if (isNext) {
      this.x.append([index]);
      this.y.append([mean]);
      return;
    }
    const sorted = [...this.means].sort(([a], [b]) => a - b);
    this.x.clear();
    this.y.clear();
    this.x.append(sorted.map(([at]) => at));
    this.y.append(sorted.map(([, value]) => value));
  }
}

/** The mean within the box, of each frame that was shown since the box was drawn. */
function Trace({ frames, roi }: { frames: Frames; roi: Box }) {
  const host = useRef<HTMLDivElement>(null);
  const traced = useMemo(() => new Traced(), [roi.join()]);
  const mean = useSignal(NaN);
  const pane = useRef<Pane | null>(null);
  const draw = (): void =>
    pane.current?.draw({
      lines: [{ label: 'mean', x: traced.x, y: traced.y, color: colors()[1]!, count: traced.x.length, isGhost: false }],
      range: null,
      isLog: false,
      isTime: false,
      isLive: true,
      xLabel: 'frame',
      yLabel: 'mean',
    });
  const current = useRef(draw);
  current.current = draw;
  const run = useMemo(() => () => current.current(), []);
  useEffect(() => {
    pane.current = new Pane(host.current!, { onZoom: () => {}, onCursor: () => {} });
    const observer = new ResizeObserver(() => redraw(run));
    observer.observe(host.current!);
    return () => {
      observer.disconnect();
      forget(run);
      pane.current?.destroy();
    };
  }, []);
  useSignalEffect(() => {
    theme.value;
    const picture = frames.picture.value;
    const [left, top, right, bottom] = roi;
    if (!picture || picture === traced.last || right > picture.width || bottom > picture.height) return;
    traced.last = picture;
    const value = meanWithin(picture.cells, picture.width, [left, top, right, bottom]);
    const index = picture.index.reduce((sum, at, axis) => sum * (frames.leading[axis] ?? 1) + at, 0);
    traced.note(index, value);
    mean.value = value;
    redraw(run);
  });
  return (
    <section class="trace" aria-label="Mean within the box">
      <header>
        Box {roi[2] - roi[0]} × {roi[3] - roi[1]} at {roi[0]}, {roi[1]} · mean <b>{short(mean.value)}</b>
        <Button onClick={() => go({ roi: null })} title="Remove the box">
          ×
        </Button>
      </header>
      <div class="canvas" ref={host} />
    </section>
  );
}
