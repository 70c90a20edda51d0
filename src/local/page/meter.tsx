/** One figure now, or at the time pointed at: its name in the color of its line, its value, how much of the whole that is. */
export function Meter(props: {
  name: string;
  /** The value with its unit, as text. */
  value: string;
  /** 0 to 100; without it there is no bar. */
  percent?: number | undefined;
  color: "util" | "vram" | "power" | "temp";
  /** Under pressure. */
  level?: "elevated" | "critical" | undefined;
}) {
  const { name, value, percent, color, level } = props;
  const filled = Math.min(100, Math.max(0, percent ?? 0));
  return (
    <div class={`meter ${color}`}>
      <span class="name">{name}</span>
      <span class={level === undefined ? "value" : `value ${level}`}>
        {value}
        {level !== undefined && <span class="level"> {level}</span>}
      </span>
      <span class="bar" aria-hidden="true">
        <span style={{ width: `${filled}%` }} />
      </span>
    </div>
  );
}
