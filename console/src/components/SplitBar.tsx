// The shares of a percentage split as one bar with numbers.
import { sharesOf, type Bucket } from '../rules.ts';

export function SplitBar({ buckets }: { buckets: readonly Bucket[] }) {
  return (
    <div class="split">
      {sharesOf(buckets).map(({ variant, share }, index) => {
        const text = `${variant} ${share} %`;
        return <span key={index} class={`slice slice-${index % 6}`} style={{ flexGrow: String(share) }} title={text}>{text}</span>;
      })}
    </div>
  );
}
