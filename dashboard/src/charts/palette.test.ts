// Colours that stand beside each other differ also for those who do not see red or green: measured, not judged by eye.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SERIES_COLORS } from "./model";

/** CIEDE2000; from about 2 on a difference is seen when looked for, from 10 on at a glance. */
const DIFFERENCE_MIN = 10;
/** The compared period and "other" are grey and dashed, with a name of their own. */
const DIFFERENCE_OF_DASHED_MIN = 6;
/** WCAG 1.4.11, of what has to be seen to understand the picture. */
const CONTRAST_MIN = 3;

type Triple = [number, number, number];
type Matrix = [Triple, Triple, Triple];

/** Machado, Oliveira and Fernandes 2009, severity 1; of linear RGB. */
const SIGHT: Record<string, Matrix> = {
  "all colours": [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protanopia: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deuteranopia: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
};
const TO_XYZ: Matrix = [
  [0.4124564, 0.3575761, 0.1804375],
  [0.2126729, 0.7151522, 0.072175],
  [0.0193339, 0.119192, 0.9503041],
];

const times = (matrix: Matrix, [x, y, z]: Triple) => matrix.map(([a, b, c]) => a * x + b * y + c * z) as Triple;

function linear(hex: string): Triple {
  expect(hex).toMatch(/^#[0-9a-f]{6}$/);
  return [1, 3, 5].map((at) => {
    const c = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as Triple;
}

/** CIE L*a*b*, D65. */
function lab(rgb: Triple): Triple {
  const clipped = rgb.map((c) => Math.min(1, Math.max(0, c))) as Triple;
  const [x, y, z] = times(TO_XYZ, clipped);
  const f = (t: number) => (t > 216 / 24_389 ? Math.cbrt(t) : ((24_389 / 27) * t + 16) / 116);
  const [fx, fy, fz] = [f(x / 0.95047), f(y), f(z / 1.08883)];
  return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)];
}

/** CIEDE2000, after Sharma, Wu and Dalal 2005. */
function difference([l1, a1, b1]: Triple, [l2, a2, b2]: Triple): number {
  const rad = (degrees: number) => (degrees * Math.PI) / 180;
  const strength = (c: number) => Math.sqrt(c ** 7 / (c ** 7 + 25 ** 7));
  const stretch = 1 + 0.5 * (1 - strength((Math.hypot(a1, b1) + Math.hypot(a2, b2)) / 2));
  const polar = (a: number, b: number) => {
    const x = a * stretch;
    return { c: Math.hypot(x, b), h: ((Math.atan2(b, x) * 180) / Math.PI + 360) % 360 };
  };
  const [p, q] = [polar(a1, b1), polar(a2, b2)];
  const isGrey = p.c * q.c === 0;
  const turn = isGrey ? 0 : ((q.h - p.h + 540) % 360) - 180;
  const hue = isGrey ? p.h + q.h : (p.h + turn / 2 + 360) % 360;
  const [light, chroma] = [(l1 + l2) / 2, (p.c + q.c) / 2];
  const t =
    1 -
    0.17 * Math.cos(rad(hue - 30)) +
    0.24 * Math.cos(rad(2 * hue)) +
    0.32 * Math.cos(rad(3 * hue + 6)) -
    0.2 * Math.cos(rad(4 * hue - 63));
  const dl = (l2 - l1) / (1 + (0.015 * (light - 50) ** 2) / Math.sqrt(20 + (light - 50) ** 2));
  const dc = (q.c - p.c) / (1 + 0.045 * chroma);
  const dh = (2 * Math.sqrt(p.c * q.c) * Math.sin(rad(turn / 2))) / (1 + 0.015 * chroma * t);
  const twist = -2 * strength(chroma) * Math.sin(rad(60 * Math.exp(-(((hue - 275) / 25) ** 2))));
  return Math.sqrt(dl ** 2 + dc ** 2 + dh ** 2 + twist * dc * dh);
}

function contrast(a: string, b: string): number {
  const luminance = (hex: string) => times(TO_XYZ, linear(hex))[1];
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

/** The roles of a theme, as the pages have them. */
function roles(selector: string): Map<string, string> {
  const css = readFileSync(new URL("../styles.css", import.meta.url), "utf8");
  const block = css.slice(css.indexOf(`${selector} {`)).split("}")[0] ?? "";
  return new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name = "", hex = ""]) => [name, hex]));
}

/** Pairs that are less apart than they must be, to be read in the failure. */
function tooClose(theme: Map<string, string>, pairs: [string, string][], min: number): string[] {
  return pairs.flatMap(([a, b]) =>
    Object.entries(SIGHT).flatMap(([sight, matrix]) => {
      const [x, y] = [a, b].map((name) => lab(times(matrix, linear(theme.get(name) ?? "")))) as [Triple, Triple];
      const apart = difference(x, y);
      return apart < min ? [`${a} and ${b}, ${sight}: ${apart.toFixed(1)}`] : [];
    }),
  );
}

const pairsOf = (names: string[]) => names.flatMap((a, i) => names.slice(i + 1).map((b): [string, string] => [a, b]));
const series = SERIES_COLORS.map((color) => color.slice("var(--".length, -1));

describe("the difference of two colours", () => {
  it("is what its authors publish", () => {
    // Pairs 1, 7, 17 and 25 of their test data.
    for (const [a, b, apart] of [
      [[50, 2.6772, -79.7751], [50, 0, -82.7485], 2.0425],
      [[50, 0, 0], [50, -1, 2], 2.3669],
      [[50, 2.5, 0], [73, 25, -18], 27.1492],
      [[60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387], 1.2644],
    ] as [Triple, Triple, number][]) {
      expect(difference(a, b)).toBeCloseTo(apart, 4);
    }
  });
});

for (const [name, selector] of [
  ["light", ":root"],
  ["dark", '[data-theme="dark"]'],
] as const) {
  describe(`the ${name} theme`, () => {
    const theme = roles(selector);

    it("has series that anybody tells apart", () => {
      expect(series.length).toBe(8);
      expect(tooClose(theme, pairsOf(series), DIFFERENCE_MIN)).toEqual([]);
      const beside = series.map((s): [string, string] => [s, "muted"]);
      expect(tooClose(theme, beside, DIFFERENCE_OF_DASHED_MIN)).toEqual([]);
    });

    it("has an error rate apart from its threshold", () => {
      expect(tooClose(theme, [["series-4", "bad"]], DIFFERENCE_MIN)).toEqual([]);
    });

    it("has a light whose colours anybody tells apart", () => {
      expect(tooClose(theme, pairsOf(["good", "warn", "bad"]), DIFFERENCE_MIN)).toEqual([]);
    });

    it("has series that stand out from what is behind them", () => {
      const faint = series.filter((s) => contrast(theme.get(s) ?? "", theme.get("surface") ?? "") < CONTRAST_MIN);
      expect(faint).toEqual([]);
    });
  });
}
