// Pictures for the README, of a demo that runs: `npm run screenshots`, with the addresses of a demo and of a fleet.
import { resolve } from "node:path";
import { expect, test } from "@playwright/test";

const DIRECTORY = resolve(import.meta.dirname, "../../ops/screenshots");
const demo = process.env.DEMO ?? "http://127.0.0.1:7070";
const fleet = process.env.FLEET ?? demo;
const explore = `/explore?metric=page_view&group=${encodeURIComponent('["country_code"]')}`;

const PICTURES = [
  { file: "overview-1440", url: `${demo}/`, width: 1440 },
  { file: "overview-820", url: `${demo}/`, width: 820 },
  { file: "overview-light-1440", url: `${demo}/`, width: 1440, theme: "light" },
  { file: "explore-1440", url: demo + explore, width: 1440 },
  { file: "explore-820", url: `${demo}${explore}&picture=breakdown`, width: 820 },
  { file: "cluster-1440", url: `${fleet}/cluster`, width: 1440 },
];

for (const { file, url, width, theme = "dark" } of PICTURES) {
  test(file, async ({ page }) => {
    test.setTimeout(120_000);
    await page.setViewportSize({ width, height: width > 1_000 ? 900 : 1_180 });
    await page.addInitScript((value) => localStorage.setItem("theme", value), theme);
    await page.goto(url);
    await expect(page.locator("main .animate-pulse")).toHaveCount(0);
    await expect(page.locator("[data-light]")).toHaveAttribute("data-light", "green", { timeout: 90_000 });
    if (!url.includes("/cluster")) await expect(page.getByRole("status").filter({ hasText: "Live" })).toBeVisible();
    // Every shard has answered; rates need two readings.
    await expect(page.getByText("no leader")).toHaveCount(0);
    await page.waitForTimeout(3_000);
    await page.screenshot({ path: resolve(DIRECTORY, `${file}.png`), fullPage: true });
  });
}
