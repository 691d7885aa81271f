// The shares of a percentage split as one bar with numbers.
import type { Bucket } from '../rules.ts';

export function SplitBar({ buckets }: { buckets: readonly Bucket[] }) {
  const weights = buckets.map(({ weight = 1 }) => Math.max(0, weight));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return (
    <div class="split">
      {buckets.map(({ variant }, index) => {
        const share = sum === 0 ? 0 : (weights[index]! / sum) * 100;
        const text = `${variant} ${Math.round(share * 100) / 100} %`;
        return <span key={index} class={`slice slice-${index % 6}`} style={{ flexGrow: String(share) }} title={text}>{text}</span>;
      })}
    </div>
  );
}
