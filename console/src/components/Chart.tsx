// Small charts as SVG.

/** Numbers over time, with a sentence for those who cannot see it. */
export function Sparkline({ values, label, width = 120, height = 24 }: { values: readonly number[]; label: string; width?: number; height?: number }) {
  const most = Math.max(1, ...values);
  const step = values.length > 1 ? (width - 2) / (values.length - 1) : 0;
  const points = values.map((value, index) => `${(1 + index * step).toFixed(1)},${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`);
  return (
    <svg class="sparkline" role="img" aria-label={label} width={width} height={height} viewBox={`0 0 ${width} ${height}`}>
      <polyline points={points.join(' ')} />
    </svg>
  );
}

export interface Slice {
  label: string;
  weight: number;
}

/** Shares of a whole as one bar with numbers. */
export function SplitBar({ slices }: { slices: readonly Slice[] }) {
  const sum = slices.reduce((total, slice) => total + Math.max(0, slice.weight), 0);
  return (
    <div class="split">
      {slices.map((slice, index) => {
        const share = sum === 0 ? 0 : (Math.max(0, slice.weight) / sum) * 100;
        return (
          <span key={index} class={`slice slice-${index % 6}`} style={{ flexGrow: String(share) }} title={`${slice.label}: ${round(share)} %`}>
            {slice.label} {round(share)} %
          </span>
        );
      })}
    </div>
  );
}

function round(share: number): string {
  return String(Math.round(share * 100) / 100);
}
