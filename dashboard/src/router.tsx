import { createRootRoute, createRoute, createRouter } from "@tanstack/react-router";
import { Overview } from "./pages/Overview";
import { viewSchema } from "./search/view";
import { NotFound, Shell } from "./shell/Shell";

const root = createRootRoute({
  component: Shell,
  notFoundComponent: NotFound,
  validateSearch: (search) => viewSchema.parse(search),
});

const overview = createRoute({ getParentRoute: () => root, path: "/", component: Overview });

export const router = createRouter({
  routeTree: root.addChildren([overview]),
  defaultPreload: "intent",
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
