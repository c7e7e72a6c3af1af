// The frame of the page: navigation, the token, what holds for all views, and the view that the address names.
import { render, type ComponentType } from "preact";
import { useSignal } from "@preact/signals";
import { access, mayOperate, refresh, trouble } from "./access";
import { href, path } from "./address";
import { forgetToken, gone, hasToken, keepToken, tokenAsked, tokenFault } from "./api";
import { JobsView } from "./jobs/JobsView";
import { ModelsView } from "./models/ModelsView";
import { Fault } from "./parts/Fault";
import { Reconstruct } from "./reconstruct/Reconstruct";
import { WindowView } from "./window/WindowView";

interface View {
  name: string;
  title: string;
  Body: ComponentType;
  /** Only for those who may do everything. */
  operate?: boolean;
}
const VIEWS: View[] = [
  { name: "reconstruct", title: "Reconstruct", Body: Reconstruct },
  { name: "window", title: "Window", Body: WindowView },
  { name: "jobs", title: "Jobs", Body: JobsView, operate: true },
  { name: "models", title: "Models", Body: ModelsView },
];

function Page() {
  const views = VIEWS.filter(({ operate }) => !operate || mayOperate.value);
  const wanted = path.value.split("/")[0];
  const view = views.find(({ name }) => name === wanted) ?? views[0]!;
  const refused = access.value && VIEWS.find(({ name }) => name === wanted && name !== view.name);
  document.title = `${view.title} – fbp-ray`;
  return (
    <>
      <header>
        <h1>fbp-ray</h1>
        <nav aria-label="Views">
          {views.map(({ name, title }) => (
            <a key={name} href={href(name)} aria-current={view.name === name ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <strong class="research">Research use only, not for diagnosis</strong>
      </header>
      {gone.value && (
        <p class="banner" role="status">
          The service does not answer. The page tries again every three seconds; nothing that you have chosen or typed is lost.
        </p>
      )}
      <main>
        {!gone.value && tokenAsked.value === null && <Fault text={trouble.value} retry={() => void refresh()} />}
        {refused && (
          <p class="note refused" role="status">
            {refused.title} needs a token with the role operate; this one has the role {access.value!.role}.
          </p>
        )}
        {tokenAsked.value !== null ? <AskToken why={tokenAsked.value} /> : access.value ? <view.Body /> : <Waiting />}
      </main>
      <footer>
        <span>{access.value && `version ${access.value.version}, role ${access.value.role}`}</span>
        <a href="docs">API</a>
        <a href={LICENCES}>Licences</a>
        {hasToken() && (
          <button
            type="button"
            onClick={() => {
              forgetToken();
              location.reload();
            }}
          >
            Forget the token
          </button>
        )}
      </footer>
    </>
  );
}

function Waiting() {
  return trouble.value ? null : <p class="waiting">The service is asked what it has.</p>;
}

function AskToken({ why }: { why: string }) {
  const [typed, wrong] = [useSignal(""), useSignal("")];
  return (
    <form
      class="token"
      onSubmit={(event) => {
        event.preventDefault();
        const token = typed.value.trim();
        wrong.value = token ? tokenFault(token) : "Type or paste the token.";
        if (!wrong.value) keepToken(token);
      }}
    >
      <h2>This service asks for a token</h2>
      {why && <p role="alert">{why[0]!.toUpperCase() + why.slice(1)}.</p>}
      <label>
        Token
        <input
          type="password"
          autocomplete="off"
          aria-invalid={!!wrong.value}
          aria-describedby="token-wrong"
          value={typed.value}
          onInput={(event) => ([typed.value, wrong.value] = [event.currentTarget.value, ""])}
        />
      </label>
      <b class="wrong" id="token-wrong" role="alert">
        {wrong.value}
      </b>
      <button type="submit">Go on</button>
      <p class="note">It is kept for this tab alone and forgotten when the tab is closed. The operator of the service has it.</p>
    </form>
  );
}

render(<Page />, document.body);
