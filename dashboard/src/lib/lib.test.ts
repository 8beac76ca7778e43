import { describe, expect, it } from "vitest";
import { openFrom, ticksOf } from "../charts/axis";
import { change, number, percent, percentTick, plusMinus, short, UNKNOWN } from "./format";
import { isZone, midnight, momentOf, offsetMs, wallClock } from "./zone";

const HOUR_MS = 3_600_000;
const utc = (text: string) => Date.parse(text);

describe("numbers as people read them", () => {
  it("never shows unknown as nought", () => {
    for (const unknown of [null, undefined]) {
      expect([number(unknown), short(unknown), percent(unknown)]).toEqual([UNKNOWN, UNKNOWN, UNKNOWN]);
      expect(change(unknown, 1)).toBeNull();
      expect(change(1, unknown)).toBeNull();
    }
    expect(number(0)).toBe("0");
  });

  it("writes shares on an axis with the digits that they have", () => {
    expect([0, 0.0025, 0.005, 0.0075, 0.01, 0.123].map(percentTick)).toEqual([
      "0 %",
      "0.25 %",
      "0.5 %",
      "0.75 %",
      "1 %",
      "12.3 %",
    ]);
  });

  it("prints counts whole and means to four digits", () => {
    expect(number(1234567)).toBe("1,234,567");
    expect(number(2.34567)).toBe("2.346");
    expect(short(1234567)).toBe("1.2M");
    expect(plusMinus(0)).toBeNull();
    expect(plusMinus(0.012)).toBe("± 1.2 %");
  });

  it("says how much a figure changed, and not when there is nothing to divide by", () => {
    expect(change(150, 100)).toBe("+50.0 %");
    expect(change(50, 100)).toBe("−50.0 %");
    expect(change(0.021, 0.02, true)).toBe("+0.10 points");
    expect(change(3_900, 100)).toBe("39 times");
    expect(change(5, 0)).toBeNull();
    expect(change(0, 0)).toBe("no change");
  });
});

describe("wall clocks", () => {
  it("goes to a zone and back, also by +05:45 and over a change of clocks", () => {
    expect(wallClock(utc("2026-01-01T00:00:00Z"), "Asia/Kathmandu")).toBe("2026-01-01T05:45");
    for (const tz of ["UTC", "Asia/Kathmandu", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]) {
      for (let ms = utc("2026-03-01T00:00:00Z"); ms < utc("2026-04-10T00:00:00Z"); ms += 7 * HOUR_MS) {
        const back = momentOf(wallClock(ms, tz), tz) ?? 0;
        expect(wallClock(back, tz)).toBe(wallClock(ms, tz));
      }
    }
  });

  it("takes a time that the clocks skip as the moment after, and a twice told one as one of both", () => {
    expect(momentOf("2026-03-29T02:30", "Europe/Berlin")).toBe(utc("2026-03-29T01:30:00Z"));
    expect(["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"].map(utc)).toContain(
      momentOf("2026-10-25T02:30", "Europe/Berlin"),
    );
    expect(momentOf("", "UTC")).toBeNull();
  });

  it("finds midnight on days of 23 and 25 hours", () => {
    const noon = utc("2026-03-29T10:00:00Z");
    expect(midnight(noon, "Europe/Berlin", 1) - midnight(noon, "Europe/Berlin")).toBe(23 * HOUR_MS);
    const autumn = utc("2026-10-25T10:00:00Z");
    expect(midnight(autumn, "Europe/Berlin", 1) - midnight(autumn, "Europe/Berlin")).toBe(25 * HOUR_MS);
  });

  it("knows a zone from what is none", () => {
    expect([isZone("Asia/Kathmandu"), isZone("UTC"), isZone("Mars/Olympus")]).toEqual([true, true, false]);
    expect(offsetMs(utc("2026-07-01T00:00:00Z"), "America/New_York")).toBe(-4 * HOUR_MS);
  });
});

describe("the time axis", () => {
  const hours = (from: string, n: number) => Array.from({ length: n }, (_, i) => utc(from) + i * HOUR_MS);

  it("has its ticks at round times of the zone", () => {
    const ticks = ticksOf(hours("2026-01-01T05:00:00Z", 25), "Europe/Berlin");
    expect(ticks.length).toBeGreaterThan(4);
    for (const ms of ticks) expect(Number(wallClock(ms, "Europe/Berlin").slice(11, 13)) % 3).toBe(0);
    expect(ticksOf([], "UTC")).toEqual([]);
    expect(ticksOf(hours("2026-01-01T05:00:00Z", 1), "UTC")).toHaveLength(1);
  });

  it("marks the last step only while it is not over", () => {
    const times = hours("2026-01-01T00:00:00Z", 3);
    expect(openFrom(times, HOUR_MS, "2026-01-01T02:20:00Z", true)).toBe(times[2]);
    const later = utc("2026-02-01T00:00:00Z");
    expect(openFrom(times, HOUR_MS, "2026-01-01T03:00:00Z", false, later)).toBeNull();
    expect(openFrom(times, HOUR_MS, "2026-01-01T03:00:00Z", false, utc("2026-01-01T02:10:00Z"))).toBe(times[2]);
    expect(openFrom([], HOUR_MS, undefined, true)).toBeNull();
  });
});
