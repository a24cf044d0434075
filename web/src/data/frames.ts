/** Drawing happens once per animation frame, and not at all while nobody looks. */

type Draw = () => void;

const due = new Set<Draw>();
let asked = false;

/** Of the last frames: when each began, and what drawing cost. Tests and the help page read it. */
export const frameStats = { frames: 0, drawMs: 0, longestDrawMs: 0, longestGapMs: 0 };
let last = 0;

export function redraw(draw: Draw): void {
  due.add(draw);
  if (!asked && !document.hidden) {
    asked = true;
    requestAnimationFrame(run);
  }
}

export function forget(draw: Draw): void {
  due.delete(draw);
}

function run(now: number): void {
  asked = false;
  const begin = performance.now();
  const draws = [...due];
  due.clear();
  for (const draw of draws) draw();
  const took = performance.now() - begin;
  frameStats.frames += 1;
  frameStats.drawMs += took;
  frameStats.longestDrawMs = Math.max(frameStats.longestDrawMs, took);
  if (now - last < 1000) frameStats.longestGapMs = Math.max(frameStats.longestGapMs, now - last);
  last = now;
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && due.size && !asked) {
    asked = true;
    requestAnimationFrame(run);
  }
});
