// Builds the page into tiled_stream/page: names carry a hash of their content, the same sources give the same bytes everywhere.
// `node build.mjs --check` builds nothing and fails if what is committed is not what the sources give.

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, '..', 'tiled_stream', 'page');
const files = new Map();

const named = (name, ending, content) => {
  const hash = createHash('sha256').update(content).digest('hex').slice(0, 10);
  const full = `${name}-${hash}.${ending}`;
  files.set(full, Buffer.from(content));
  return full;
};

async function bundled(entry, define) {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    charset: 'utf8',
    legalComments: 'none',
    outdir: 'out',
    write: false,
    define,
  });
  return Object.fromEntries(outputFiles.map(({ path, contents }) => [path.split('.').at(-1), contents]));
}

const licences = ['@msgpack/msgpack', '@preact/signals', '@preact/signals-core', '@uwdata/flechette', 'preact', 'uplot'].map((name) => {
  const folder = join(here, 'node_modules', name);
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  return `${name} ${version}\n\n${readFileSync(join(folder, file), 'utf8').trim()}\n`;
});

const worker = named('worker', 'js', (await bundled('src/wire/worker.ts', {})).js);
const page = await bundled('src/main.tsx', { WORKER: JSON.stringify(worker) });
const script = named('main', 'js', page.js);
const style = named('style', 'css', page.css);
const icon = named('icon', 'svg', readFileSync(join(here, 'icon.svg')));
const index = readFileSync(join(here, 'index.html'), 'utf8');
files.set('index.html', Buffer.from(index.replaceAll('SCRIPT', script).replaceAll('STYLE', style).replaceAll('ICON', icon)));
files.set('THIRD-PARTY.txt', Buffer.from(`The page contains these libraries, under these licences.\n\n${licences.join(`\n${'-'.repeat(80)}\n\n`)}`));

if (process.argv.includes('--check')) {
  const kept = readdirSync(target).sort();
  const made = [...files.keys()].sort();
  const differs = kept.join() !== made.join() || made.some((name) => !files.get(name).equals(readFileSync(join(target, name))));
  if (differs) {
    console.error(`tiled_stream/page is not what web/ gives; run "make page" and commit it.\n  there: ${kept}\n  built: ${made}`);
    process.exit(1);
  }
  console.log('tiled_stream/page is what web/ gives');
} else {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  for (const [name, content] of files) writeFileSync(join(target, name), content);
  for (const [name, content] of files) console.log(`${String(content.length).padStart(8)}  ${name}`);
}
