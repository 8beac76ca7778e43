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
