// Shares of a whole as one bar with numbers.

export interface Slice {
  label: string;
  weight: number;
}

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
