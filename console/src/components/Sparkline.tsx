// A small chart as SVG.

/** Numbers over time, with a sentence for those who cannot see it. */
export function Sparkline({ values, label }: { values: readonly number[]; label: string }) {
  const most = Math.max(1, ...values);
  return (
    <svg class="sparkline" role="img" aria-label={label} viewBox={`0 0 ${values.length - 1} ${most}`} preserveAspectRatio="none">
      <polyline points={values.map((value, day) => `${day},${most - value}`).join(' ')} />
    </svg>
  );
}
