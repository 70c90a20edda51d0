/** Figures as a person reads them. */

/** "45 s", "3 min", "2 h 5 min", "4 d 2 h". */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return hours % 24 === 0 ? `${hours / 24} d` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** From one RFC 3339 instant to another; "" where one is unknown. */
export function between(from: string | undefined, to: string): string {
  return from === undefined ? "" : duration(Date.parse(to) - Date.parse(from));
}

/** MiB as GiB with one decimal where that is shorter. */
export function mib(value: number): string {
  return value < 1024 ? `${Math.round(value)} MiB` : `${gib(value)} GiB`;
}

export function gib(valueMiB: number): string {
  const value = valueMiB / 1024;
  return value < 100 ? value.toFixed(1) : String(Math.round(value));
}

/** "40.0/79.6 GiB", "79.6 GiB" where the use is unknown, "-" where nothing is known. */
export function usedOf(usedMiB: number | undefined, totalMiB: number | undefined): string {
  if (totalMiB === undefined) return usedMiB === undefined ? "-" : mib(usedMiB);
  return usedMiB === undefined ? mib(totalMiB) : `${gib(usedMiB)}/${gib(totalMiB)} GiB`;
}

/** The value with its unit, or "-". */
export function measured(value: number | undefined, unit: string): string {
  return value === undefined ? "-" : `${Math.round(value)} ${unit}`;
}

export function gpuHours(gpuSeconds: number): string {
  return (gpuSeconds / 3600).toFixed(gpuSeconds < 36_000 ? 3 : 1);
}

/** Joules as "0.3 Wh", "840 Wh", "1.2 kWh". */
export function energy(joules: number): string {
  const wattHours = joules / 3600;
  if (wattHours >= 1000) return `${(wattHours / 1000).toFixed(1)} kWh`;
  return `${wattHours.toFixed(wattHours < 10 ? 1 : 0)} Wh`;
}
