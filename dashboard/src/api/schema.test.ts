import { readFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import { expect, it } from "vitest";

it("the generated types are those of openapi.json: `npm run api` makes them anew", async () => {
  const described = JSON.parse(readFileSync("openapi.json", "utf8"));
  const generated = readFileSync("src/api/schema.gen.ts", "utf8");
  expect(generated.endsWith(astToString(await openapiTS(described, { alphabetize: true })))).toBe(true);
}, 60_000);
