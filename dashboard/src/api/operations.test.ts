import { describe, expect, it } from "vitest";
import { parseExposition, rate } from "./operations";

describe("the node's own metrics", () => {
  it("are read by name and labels, labelled ones also summed up", () => {
    const values = parseExposition(
      ["# HELP a b", "a 1", 'b{x="1"} 2', 'b{x="2"} 3.5', "c NaN", "d +Inf", "not a line", ""].join("\n"),
    );
    expect(values.get("a")).toBe(1);
    expect(values.get('b{x="2"}')).toBe(3.5);
    expect(values.get("b")).toBe(5.5);
    expect(values.has("c")).toBe(false);
  });

  it("give a rate only between two readings of one run of the node", () => {
    const at = (atMs: number, n: number) => ({ atMs, values: new Map([["n", n]]) });
    expect(rate(at(0, 10), at(2_000, 30), "n")).toBe(10);
    expect(rate(null, at(0, 1), "n")).toBeNull();
    expect(rate(at(0, 10), at(1_000, 3), "n")).toBeNull();
    expect(rate(at(0, 10), at(1_000, 30), "other")).toBeNull();
  });
});
