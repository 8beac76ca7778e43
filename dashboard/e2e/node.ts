// A real node on a free port and a directory of its own, started and stopped by the tests.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test as base, expect, type Page } from "@playwright/test";
import type { SentEvent } from "./seed";

const target = process.env.CARGO_TARGET_DIR ?? resolve(import.meta.dirname, "../../target");
const BINARY = process.env.TALLYMESH_BIN ?? join(target, "debug/tallymesh");
const READY_WITHIN_MS = 30_000;
/** Nodes that found a cluster wait for each other, on a machine that may be busy. */
const FOUNDED_WITHIN_MS = 60_000;
const CONFIG = `[[metrics]]\nname = "feature_usage"\nevent = ["feature_used"]\ndimensions = ["feature"]\n`;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

export class TestNode {
  readonly url: string;
  readonly #directory: string;
  #child: ChildProcess | null = null;

  readonly #extra: string[];

  private constructor(port: number, extra: string[] = []) {
    this.url = `http://127.0.0.1:${port}`;
    this.#extra = extra;
    this.#directory = mkdtempSync(join(tmpdir(), "tallymesh-e2e-"));
    writeFileSync(join(this.#directory, "cluster.toml"), CONFIG);
  }

  static async started(): Promise<TestNode> {
    const node = new TestNode(await freePort());
    await node.start();
    return node;
  }

  /** Nodes `n1`, `n2` and so on, which are one cluster. */
  static async fleet(count: number): Promise<TestNode[]> {
    const peers: string[] = [];
    const nodes: TestNode[] = [];
    for (let i = 0; i < count; i++) peers.push(`127.0.0.1:${await freePort()}`);
    for (const [i, peer] of peers.entries()) {
      const own = ["--node", `n${i + 1}`, "--peer", peer, "--advertise", peer, "--join", peers.join(",")];
      nodes.push(new TestNode(await freePort(), [...own, "--set", "peer.cookie=only-for-tests-0123456789abcdef"]));
    }
    try {
      await Promise.all(nodes.map((node) => node.start(FOUNDED_WITHIN_MS)));
    } catch (error) {
      await Promise.all(nodes.map((node) => node.remove()));
      throw error;
    }
    return nodes;
  }

  async start(withinMs = READY_WITHIN_MS): Promise<void> {
    const directory = this.#directory;
    const args = ["serve", "--config", join(directory, "cluster.toml"), "--data-dir", join(directory, "data")];
    this.#child = spawn(BINARY, [...args, "--http", new URL(this.url).host, ...this.#extra], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    const isReady = () =>
      fetch(`${this.url}/ready`).then(
        (r) => r.ok,
        () => false,
      );
    await expect.poll(isReady, { timeout: withinMs, message: `${BINARY} is ready` }).toBe(true);
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null) return;
    const gone = new Promise((done) => child.once("exit", done));
    child.kill("SIGTERM");
    await gone;
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async send(events: SentEvent[]): Promise<void> {
    const response = await fetch(`${this.url}/v1/events`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(events),
    });
    expect((await response.json()).count).toBe(events.length);
  }
}

/** What the browser complained about: refused styles and scripts, errors of the page. Connections that fail are part of some tests. */
export function complaints(page: Page): string[] {
  const found: string[] = [];
  page.on("pageerror", (error) => found.push(error.message));
  page.on("console", (message) => {
    const isNetwork = /Failed to load resource|net::ERR/.test(message.text());
    if (message.type() === "error" && !isNetwork) found.push(message.text());
  });
  return found;
}

export const test = base.extend<object, { node: TestNode }>({
  node: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the fixtures used from here
    async ({}, use) => {
      const node = await TestNode.started();
      const { seed } = await import("./seed");
      await node.send(seed.events);
      await use(node);
      await node.remove();
    },
    { scope: "worker" },
  ],
});
export { expect };
