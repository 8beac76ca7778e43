import { complaints, expect, test } from "./node";
import { seed } from "./seed";

test("a question is asked by clicking, is in the address, and a row of its answer filters the page", async ({
  page,
  node,
  context,
}) => {
  await page.goto(`${node.url}/explore?metric=page_view`);
  await expect(page.locator("main path.recharts-curve").first()).toBeVisible();
  await page.getByRole("button", { name: "By: nothing" }).click();
  await page.getByRole("option", { name: "country_code" }).click();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "breakdown" }).click();
  const rows = page.getByRole("main").getByRole("listitem");
  const expected = seed.byCountry("page_view");
  await expect(rows).toHaveCount(expected.length);
  const shown = (await rows.allTextContents()).sort();
  expect(shown).toEqual(expected.map(({ country, count }) => `${country ?? "(none)"}${count}`).sort());

  const other = await context.newPage();
  await other.goto(page.url());
  await expect(other.getByRole("main").getByRole("listitem")).toHaveCount(expected.length);
  await other.close();

  await rows.filter({ hasText: "DE" }).getByRole("button").click();
  await expect(rows).toHaveText([`DE${expected.find((e) => e.country === "DE")?.count}`]);
  await page.goBack();
  await expect(rows).toHaveCount(expected.length);
});

test("everything is in reach of the keyboard, and nothing breaks the policy of the page", async ({ page, node }) => {
  const wrong = complaints(page);
  await page.goto(node.url);
  await expect(page.getByTestId("conversion")).toHaveText(seed.conversion);
  await page.keyboard.press("Control+k");
  await page.getByPlaceholder("Search for a metric, a page or a command").fill("page_v");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/explore\?.*metric=page_view/);
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard shortcuts" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await expect(page).toHaveURL(/\/cluster/);
  await expect(page.getByRole("heading", { name: "Shards", exact: true })).toBeVisible();
  await page.keyboard.press("2");
  await expect(page).toHaveURL(/range=6h/);
  await page.keyboard.press("t");
  await expect(page.locator("html")).toHaveAttribute("data-theme", "light");
  await page.keyboard.press("/");
  await page.getByPlaceholder("Search for a metric").fill("zzz");
  await expect(page.getByText("Nothing found")).toBeVisible();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: /^Time zone/ }).click();
  await page.getByPlaceholder("Search").fill("kathm");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/tz=Asia%2FKathmandu/);
  expect(wrong).toEqual([]);
});

test("more than two thousand points are drawn on a canvas that can be read, clicked and filtered by", async ({
  page,
  node,
}) => {
  const wrong = complaints(page);
  const group = encodeURIComponent('["country_code"]');
  await page.goto(`${node.url}/explore?metric=page_view&group=${group}&step=1m&tz=UTC`);
  const chart = page.getByTestId("canvas");
  await expect(chart.locator("canvas")).toBeVisible();
  const box = await chart.boundingBox();
  await page.mouse.move((box?.x ?? 0) + (box?.width ?? 0) / 2, (box?.y ?? 0) + 100);
  await expect(chart.getByText("DE", { exact: true })).toBeVisible();
  await page.mouse.down();
  await page.mouse.up();
  await expect(page.getByRole("list", { name: "Filters" })).toContainText("country_code:");
  // All of the day is there: as many page views as were sent.
  await page.getByRole("button", { name: "Clear all" }).click();
  await page.goto(`${node.url}/explore?metric=page_view&step=1m`);
  await expect(page.locator("main path.recharts-curve").first()).toBeVisible();
  const csv = await page.getByRole("link", { name: "CSV" }).getAttribute("href");
  const rows = (await (await fetch(node.url + csv)).text()).trim().split(/\r?\n/);
  const at = rows[0]?.split(",").indexOf("count") ?? -1;
  const sum = rows.slice(1).reduce((total, row) => total + Number(row.split(",")[at]), 0);
  expect(sum).toBe(seed.byCountry("page_view").reduce((total, { count }) => total + count, 0));
  expect(rows.length).toBeGreaterThan(1_400);
  expect(wrong).toEqual([]);
});

test("a breakdown shows the largest groups and what is left, and can be taken along", async ({ page, node }) => {
  await page.goto(`${node.url}/explore?group=${encodeURIComponent('["event"]')}&picture=breakdown`);
  const rows = page.getByRole("main").getByRole("listitem");
  await expect(rows).toHaveCount(6);
  const counts = new Map<string, number>();
  for (const { event } of seed.events) counts.set(event, (counts.get(event) ?? 0) + 1);
  const sorted = [...counts.values()].sort((a, b) => b - a);
  // Other tests send more logins meanwhile: those are among the rest.
  const shown = Number((await rows.last().textContent())?.replace("Other", ""));
  expect(shown).toBeGreaterThanOrEqual(sorted.slice(5).reduce((total, n) => total + n, 0));
  await page.getByRole("button", { name: "10", exact: true }).click();
  await expect(page).toHaveURL(/top=10/);
  await expect(rows).toHaveCount(counts.size);
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "PNG" }).click();
  expect((await download).suggestedFilename()).toMatch(/\.png$/);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "curl" }).click();
  await expect(page.getByRole("button", { name: "Copied" })).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain(`curl '${node.url}/v1/query?metric=*`);
});
