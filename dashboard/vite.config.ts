import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const node = process.env.TALLYMESH_URL ?? "http://127.0.0.1:7070";
const served = ["/v1", "/api", "/health", "/ready", "/metrics", "/openapi.json", "/docs", "/prometheus"];

export default defineConfig({
  plugins: [react(), tailwindcss()],
  build: {
    target: "es2022",
    // Nothing inlined: the page is served under `script-src 'self'; img-src 'self'`.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
  },
  server: { proxy: Object.fromEntries(served.map((path) => [path, { target: node, ws: true }])) },
  test: { include: ["src/**/*.test.ts"] },
});
