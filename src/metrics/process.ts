import { alone, type Family, type ProcessFigures } from "./figures.ts";
import type { Description } from "./text.ts";

function of(
  name: string,
  type: Description["type"],
  help: string,
  value: (figures: ProcessFigures) => number | undefined,
): Family {
  return { name, type, help, labels: [], samples: (figures) => alone(value(figures.process)) };
}

/** The daemon's own process, by the names every Prometheus client uses. */
export const PROCESS_FAMILIES: readonly Family[] = [
  of(
    "process_cpu_seconds_total",
    "counter",
    "CPU time the daemon has used, in seconds",
    ({ cpuSeconds }) => cpuSeconds,
  ),
  of(
    "process_start_time_seconds",
    "gauge",
    "When the daemon was started, seconds since the epoch",
    ({ startTimeSeconds }) => startTimeSeconds,
  ),
  of("process_resident_memory_bytes", "gauge", "Memory of the daemon", ({ residentBytes }) => residentBytes),
  of("process_open_fds", "gauge", "Files and sockets the daemon has open", ({ openFds }) => openFds),
  of("process_max_fds", "gauge", "Files and sockets the daemon may have open", ({ maxFds }) => maxFds),
  of("nodejs_heap_size_used_bytes", "gauge", "JavaScript heap in use", ({ heapUsedBytes }) => heapUsedBytes),
  of("nodejs_heap_size_total_bytes", "gauge", "JavaScript heap set aside", ({ heapTotalBytes }) => heapTotalBytes),
  of(
    "nodejs_eventloop_lag_seconds",
    "gauge",
    "How long the event loop let this scrape wait for its next turn",
    ({ eventLoopLagSeconds }) => eventLoopLagSeconds,
  ),
];
