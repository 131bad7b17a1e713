// An OpenID provider: oidc-provider, with its own pages for login and consent.
//
// oidc_provider.mjs PORT GATE: the client `rhumb` at http://127.0.0.1:GATE, whose access tokens are good for a few seconds.
// Anybody can log in; `sub` is the name that was typed. Claims are larger than any cookie.

import Provider from "oidc-provider";

const [port, gate] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const groups = Array.from({ length: 400 }, (_, at) => `group-with-a-long-name-${at}`);

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "rhumb",
      client_secret: "a secret with blanks & signs",
      redirect_uris: [`http://127.0.0.1:${gate}/oauth2/callback`],
      post_logout_redirect_uris: [`http://127.0.0.1:${gate}/bye`],
      response_types: ["code"],
      grant_types: ["authorization_code", "refresh_token", "client_credentials"],
      backchannel_logout_uri: `http://127.0.0.1:${gate}/oauth2/backchannel-logout`,
      backchannel_logout_session_required: true,
      scope: "openid email offline_access",
    },
  ],
  // Its own refuses loopback addresses.
  fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
  cookies: { keys: ["test"] },
  claims: { openid: ["sub"], email: ["email", "groups"] },
  conformIdTokenClaims: false,
  async findAccount(_, id) {
    return { accountId: id, claims: async () => ({ sub: id, email: `${id}@example.com`, groups }) };
  },
  features: {
    devInteractions: { enabled: true },
    backchannelLogout: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: { enabled: false },
  },
  issueRefreshToken: async (_, client, code) => code.scopes.has("offline_access"),
  rotateRefreshToken: true,
  ttl: { AccessToken: 5, ClientCredentials: 600, IdToken: 600, RefreshToken: 600, Session: 600, Grant: 600, Interaction: 600 },
  pkce: { required: () => true },
});

provider.on("backchannel.error", (_, error) => console.error("backchannel logout failed:", error));
provider.on("backchannel.success", () => console.error("backchannel logout done"));
provider.listen(Number(port), "127.0.0.1");
