import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "./node";

const FILE = resolve(import.meta.dirname, "../openapi.json");

// UPDATE_API=1 writes what the node serves; `npm run api` then makes the types.
test("openapi.json, which the types are made from, is what the node serves", async ({ node }) => {
  const served = await (await fetch(`${node.url}/openapi.json`)).json();
  if (process.env.UPDATE_API) writeFileSync(FILE, `${JSON.stringify(served, null, 1)}\n`);
  expect(served).toEqual(JSON.parse(readFileSync(FILE, "utf8")));
});
