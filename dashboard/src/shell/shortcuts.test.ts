import { describe, expect, it } from "vitest";
import { KeyReader, SHORTCUTS } from "./shortcuts";

describe("keys", () => {
  it("do what the help says, one by one and in sequence", () => {
    for (const { keys, action } of SHORTCUTS) {
      const reader = new KeyReader();
      const done = keys.map((key, i) => reader.press(key, i * 100));
      expect(done.at(-1)).toEqual(action);
    }
  });

  it("start over after a while, and after a key that does not follow", () => {
    const reader = new KeyReader();
    expect(reader.press("g", 0)).toBeNull();
    expect(reader.press("c", 5_000)).toBeNull();
    expect(reader.press("g", 6_000)).toBeNull();
    expect(reader.press("t", 6_100)).toEqual({ do: "theme" });
    expect(reader.press("g", 6_200)).toBeNull();
    expect(reader.press("g", 6_300)).toBeNull();
    expect(reader.press("o", 6_400)).toEqual({ do: "go", to: "/" });
  });
});
