import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    reporters: ["default", ["json", { outputFile: "node_modules/.gpunode/test-results.json" }]],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Two cores are the smallest machine the suite is meant for; more workers than that only make timings noisy.
    maxWorkers: 2,
  },
});
