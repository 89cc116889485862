// An OpenID provider for tests: whoever logs in is who they say, and has the groups that their name says.
//
// node server.js PORT. Clients register themselves; passwords are not looked at; keys are made at each start.

import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const jwk = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });

// `ada.admins` is in the group `admins`; of `bob` no group is known.
const claimsOf = (login) => ({
  sub: login,
  name: login.split(".")[0],
  email: `${login}@example.com`,
  email_verified: !login.includes("unverified"),
  groups: login.split(".").slice(1),
});

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...jwk, kid: "test", alg: "RS256", use: "sig" }] },
  cookies: { keys: ["of a test"] },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"], groups: ["groups"] },
  scopes: ["openid", "email", "profile", "groups"],
  features: { registration: { enabled: true }, devInteractions: { enabled: true } },
  pkce: { required: () => true },
  findAccount: (_, login) => ({ accountId: login, claims: () => claimsOf(login) }),
});
provider.listen(port, "127.0.0.1");
