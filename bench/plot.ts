/** Plots as SVG, drawn for light and dark pages. */

/** A curve: what is on its axes, and its points. */
export interface Plot {
  title: string;
  x: string;
  y: string;
  /** Pairs of x and y, both above 0, with growing x. */
  points: [number, number][];
}

const WIDTH = 640;
const HEIGHT = 300;
const LEFT = 70;
const RIGHT = 30;
const TOP = 40;
const BOTTOM = 50;

/** Draws a curve with a logarithmic x axis and a y axis that begins at 0. */
export function svg({ title, x, y, points }: Plot): string {
  const first = Math.log(points[0]?.[0] ?? 1);
  const last = Math.log(points.at(-1)?.[0] ?? 1);
  const top = roundUp(Math.max(...points.map(([, value]) => value)));
  const across = (value: number) =>
    LEFT + (WIDTH - LEFT - RIGHT) * (Math.log(value) - first) / (last - first || 1);
  const up = (value: number) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;

  const places = points.map(([a, b]) => `${across(a).toFixed(1)},${up(b).toFixed(1)}`);
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((part) => {
    const at = up(part * top).toFixed(1);
    return [
      `<path d="M${LEFT} ${at}H${WIDTH - RIGHT}" stroke="#8884"/>`,
      text(LEFT - 8, Number(at) + 4, short(part * top), "end"),
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" ` +
    `font-family="system-ui, sans-serif" font-size="12" fill="#808080">`,
    `<title>${title}</title>`,
    text(LEFT, 20, `${y}, by ${x}`, "start"),
    ...lines,
    ...points.map(([a]) => text(across(a), HEIGHT - BOTTOM + 20, short(a), "middle")),
    `<polyline points="${places.join(" ")}" fill="none" stroke="#3b82f6" stroke-width="2"/>`,
    ...points.map(([a, b]) =>
      `<circle cx="${across(a).toFixed(1)}" cy="${up(b).toFixed(1)}" r="3.5" fill="#3b82f6"/>`
    ),
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x, "middle"),
    "</svg>\n",
  ].join("\n");
}

function text(x: number, y: number, text: string, anchor: string): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${text}</text>`;
}

/** A number with few digits: 1,500,000 as 1.5M. */
function short(value: number): string {
  return new Intl.NumberFormat("en-US", { notation: "compact" }).format(value);
}

/** The next number that begins with 1, 2, 4 or 8, with zeros behind it. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 4, 8].find((digit) => digit * power >= value) ?? 10) * power;
}
