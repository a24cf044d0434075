/**
 * Draws one frame of numbers: WebGL2, where contrast and colours are the graphics card's work, or a plain canvas.
 *
 * A frame is uploaded once; levels, colours, zoom cost no upload. Integers up to 16 bit go as they are, all else as singles.
 */

import type { Numbers } from '../wire/messages';

export interface Frame {
  cells: Numbers;
  width: number;
  height: number;
}

export interface Look {
  low: number;
  high: number;
  isLog: boolean;
  /** 256 colours, RGBA. */
  table: Uint8Array<ArrayBuffer>;
  /** Where the frame lies on the canvas, in its pixels. */
  left: number;
  top: number;
  scale: number;
}

export interface Painter {
  readonly kind: 'webgl2' | 'canvas';
  upload(frame: Frame): void;
  draw(look: Look): void;
  destroy(): void;
}

const VERTEX = `#version 300 es
in vec2 corner; uniform vec4 place; out vec2 at;
void main() { at = corner; vec2 p = place.xy + corner * place.zw; gl_Position = vec4(p.x * 2.0 - 1.0, 1.0 - p.y * 2.0, 0.0, 1.0); }`;

const fragment = (sampler: string): string => `#version 300 es
precision highp float; precision highp ${sampler};
uniform ${sampler} frame; uniform sampler2D colors; uniform vec2 size; uniform vec2 level; uniform bool isLog;
in vec2 at; out vec4 color;
void main() {
  float value = float(texelFetch(frame, ivec2(min(at * size, size - 1.0)), 0).r);
  if (isnan(value)) { color = vec4(0.0); return; }
  float share = isLog
    ? log(max(value, level.x) / level.x) / log(level.y / level.x)
    : (value - level.x) / (level.y - level.x);
  color = texture(colors, vec2((clamp(share, 0.0, 1.0) * 255.0 + 0.5) / 256.0, 0.5));
}`;

export function painterFor(canvas: HTMLCanvasElement, isPlain: boolean): Painter {
  const gl = isPlain ? null : canvas.getContext('webgl2', { antialias: false, alpha: true, preserveDrawingBuffer: true });
  return gl ? new GlPainter(gl) : new CanvasPainter(canvas.getContext('2d')!);
}

class GlPainter implements Painter {
  readonly kind = 'webgl2';
  private programs = new Map<string, WebGLProgram>();
  private frame: WebGLTexture;
  private colors: WebGLTexture;
  private sampler = 'sampler2D';
  private size = [1, 1];
  private shownTable: Uint8Array | null = null;

  constructor(private readonly gl: WebGL2RenderingContext) {
    const corners = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, corners);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW);
    this.frame = this.texture();
    this.colors = this.texture();
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  }

  upload({ cells, width, height }: Frame): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.frame);
    this.size = [width, height];
    const put = (internal: number, format: number, type: number, values: ArrayBufferView, sampler: string): void => {
      gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, type, values);
      this.sampler = sampler;
    };
    if (cells instanceof Uint16Array) put(gl.R16UI, gl.RED_INTEGER, gl.UNSIGNED_SHORT, cells, 'usampler2D');
    else if (cells instanceof Uint8Array) put(gl.R8UI, gl.RED_INTEGER, gl.UNSIGNED_BYTE, cells, 'usampler2D');
    else if (cells instanceof Int16Array) put(gl.R16I, gl.RED_INTEGER, gl.SHORT, cells, 'isampler2D');
    else put(gl.R32F, gl.RED, gl.FLOAT, cells instanceof Float32Array ? cells : Float32Array.from(cells), 'sampler2D');
  }

  draw(look: Look): void {
    const { gl } = this;
    const program = this.program();
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(program);
    const at = (name: string): WebGLUniformLocation | null => gl.getUniformLocation(program, name);
    if (look.table !== this.shownTable) {
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, this.colors);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, look.table);
      this.shownTable = look.table;
    }
    gl.uniform1i(at('frame'), 0);
    gl.uniform1i(at('colors'), 1);
    gl.uniform2f(at('size'), this.size[0]!, this.size[1]!);
    gl.uniform2f(at('level'), look.low, look.high > look.low ? look.high : look.low + 1e-6);
    gl.uniform1i(at('isLog'), look.isLog ? 1 : 0);
    gl.uniform4f(at('place'), look.left / width, look.top / height, (this.size[0]! * look.scale) / width, (this.size[1]! * look.scale) / height);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  destroy(): void {
    this.gl.getExtension('WEBGL_lose_context')?.loseContext();
  }

  private texture(): WebGLTexture {
    const { gl } = this;
    const made = gl.createTexture()!;
    gl.bindTexture(gl.TEXTURE_2D, made);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
    return made;
  }

  private program(): WebGLProgram {
    const known = this.programs.get(this.sampler);
    if (known) return known;
    const { gl } = this;
    const program = gl.createProgram()!;
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment(this.sampler)]] as const) {
      const shader = gl.createShader(kind)!;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? 'shader');
    const corner = gl.getAttribLocation(program, 'corner');
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    this.programs.set(this.sampler, program);
    return program;
  }
}

class CanvasPainter implements Painter {
  readonly kind = 'canvas';
  private frame: Frame | null = null;
  private image: HTMLCanvasElement = document.createElement('canvas');
  private done = '';
  private shownTable: Uint8Array | null = null;

  constructor(private readonly ctx: CanvasRenderingContext2D) {}

  upload(frame: Frame): void {
    this.frame = frame;
    this.done = '';
  }

  draw(look: Look): void {
    if (!this.frame) return;
    const { width, height } = this.frame;
    const state = `${look.low} ${look.high} ${look.isLog}`;
    if (state !== this.done || look.table !== this.shownTable) {
      this.done = state;
      this.shownTable = look.table;
      this.image.width = width;
      this.image.height = height;
      this.image.getContext('2d')!.putImageData(colored(this.frame, look), 0, 0);
    }
    this.ctx.clearRect(0, 0, this.ctx.canvas.width, this.ctx.canvas.height);
    this.ctx.imageSmoothingEnabled = false;
    this.ctx.drawImage(this.image, look.left, look.top, width * look.scale, height * look.scale);
  }

  destroy(): void {
    this.frame = null;
  }
}

function colored({ cells, width, height }: Frame, { low, high, isLog, table }: Look): ImageData {
  const image = new ImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  const colors = new Uint32Array(table.buffer);
  const span = isLog ? Math.log(high / low) : high - low;
  for (let i = 0; i < out.length; i++) {
    const value = cells[i]!;
    if (Number.isNaN(value)) continue;
    const share = isLog ? Math.log(Math.max(value, low) / low) / span : (value - low) / span;
    out[i] = colors[Math.max(0, Math.min(255, Math.round(share * 255)))]!;
  }
  return image;
}
