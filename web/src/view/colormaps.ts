/**
 * Colours of images: 256 steps between a few anchors.
 *
 * Viridis, inferno and cividis are those of matplotlib (CC0); cividis and viridis keep their order for people who do not see all
 * colours.
 */

const ANCHORS: Record<string, string> = {
  gray: '000000ffffff',
  viridis: '44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae803fbc735ec96284d44baddc30d8e219fde725',
  inferno: '0000040b0724210c4a3d096557106e71196e8a226aa32c61bc3754d24644e45a31f1731df98e09fcac11f9cb35f2ea69fcffa4',
  cividis: '00224e002e6a1a386f32436d434e6c535a6d61656f6f70737d7c788c88789b9476aba072bcae6ccdbb63dec958f0d846fee838',
};

export const COLORMAPS = Object.keys(ANCHORS);

/** 256 colours as RGBA bytes. */
export function table(name: string, isInverted: boolean): Uint8Array<ArrayBuffer> {
  const hex = ANCHORS[name] ?? ANCHORS.viridis!;
  const anchors = hex.match(/../g)!.map((pair) => parseInt(pair, 16));
  const last = anchors.length / 3 - 1;
  const rgba = new Uint8Array(1024);
  for (let i = 0; i < 256; i++) {
    const at = ((isInverted ? 255 - i : i) / 255) * last;
    const left = Math.min(Math.floor(at), last - 1);
    for (let channel = 0; channel < 3; channel++) {
      const a = anchors[3 * left + channel]!;
      const b = anchors[3 * left + 3 + channel]!;
      rgba[4 * i + channel] = Math.round(a + (b - a) * (at - left));
    }
    rgba[4 * i + 3] = 255;
  }
  return rgba;
}
