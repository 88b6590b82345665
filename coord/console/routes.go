package console

// access says who may use a route.
type access int

const (
	public    access = iota // anybody
	member                  // signed in
	anyMember               // signed in with less than the network demands, too
)

// route is one line of the table below: everything the site answers.
type route struct {
	pattern string
	access  access
	serve   func(*Console, *visit) error
}

var routes = []route{
	{"GET /static/{file}", public, (*Console).asset},
	{"GET /favicon.ico", public, (*Console).favicon},

	{"GET /welcome", public, (*Console).welcome},
	{"POST /welcome", public, (*Console).choosePassword},
	{"POST /welcome/passkey/options", public, (*Console).invitedPasskeyOptions},
	{"GET /sign-in", public, (*Console).signInPage},
	{"POST /sign-in", public, (*Console).signIn},
	{"POST /sign-in/code", public, (*Console).signInWithCode},
	{"GET /sign-in/with/{id}", public, (*Console).askProvider},
	{"GET /sign-in/with/{id}/answer", public, (*Console).answerOfProvider},
	{"POST /account/codes/prove", anyMember, (*Console).proveCode},
	{"POST /sign-in/passkey/options", public, (*Console).passkeySignInOptions},
	{"POST /sign-in/passkey", public, (*Console).signInWithPasskey},
	{"GET /sign-in/again", anyMember, (*Console).signInAgain},
	{"POST /sign-out", anyMember, (*Console).signOut},
	{"POST /theme", anyMember, (*Console).setTheme},

	{"GET /{$}", member, (*Console).home},
	{"GET /events", member, (*Console).events},
	{"GET /palette", member, (*Console).palette},
	{"GET /style", member, (*Console).style},

	{"GET /devices", member, (*Console).devices},
	{"GET /devices/{id}", member, (*Console).device},
	{"GET /devices/{id}/activity", member, (*Console).deviceActivity},
	{"GET /devices/{id}/settings", member, (*Console).deviceSettings},
	{"POST /devices/{id}/undo", member, (*Console).undoDevice},
	{"POST /devices/{id}/rename", member, (*Console).renameDevice},
	{"GET /devices/{id}/replace", member, (*Console).confirmReplace},
	{"POST /devices/{id}/replace", member, (*Console).replaceDevice},
	{"POST /devices/{id}/delete", member, (*Console).deleteDevice},
	{"POST /devices/{id}/test", member, (*Console).testDevice},
	{"POST /devices/{id}/assign", member, (*Console).assignDevice},
	{"POST /devices/{id}/dns", member, (*Console).setDeviceDNS},

	{"GET /network", member, (*Console).network},
	{"GET /network/relays/{id}", member, (*Console).relay},
	{"POST /network/relays/{id}/remove", member, (*Console).removeRelay},
	{"GET /network/dns", member, (*Console).dns},
	{"GET /network/dns/routes", member, (*Console).dnsRoutes},
	{"GET /network/dns/try", member, (*Console).dnsTry},
	{"GET /network/dns/preview", member, (*Console).previewDNS},
	{"POST /network/dns/records", member, (*Console).addRecord},
	{"POST /network/dns/records/{id}/remove", member, (*Console).removeRecord},
	{"POST /network/dns/routes", member, (*Console).addRoute},
	{"POST /network/dns/routes/remove", member, (*Console).removeRoute},
	{"POST /network/dns/nameservers", member, (*Console).setNameservers},
	{"POST /network/dns/search", member, (*Console).setSearch},
	{"POST /network/dns/options", member, (*Console).setDNSOptions},
	{"POST /network/dns/aliases/remove", member, (*Console).removeAlias},

	{"GET /access", member, (*Console).access},
	{"GET /access/policy", member, (*Console).policyText},
	{"GET /access/tests", member, (*Console).policyTests},
	{"GET /access/tags", member, (*Console).policyTags},
	{"GET /access/history", member, (*Console).policyHistory},
	{"GET /access/can", member, (*Console).canReach},
	{"POST /access", member, (*Console).savePolicy},
	{"POST /access/check", member, (*Console).checkPolicy},
	{"POST /access/revert", member, (*Console).revertPolicy},

	{"GET /add", member, (*Console).add},
	{"GET /add/device", member, (*Console).addDevice},
	{"GET /add/laptop", member, (*Console).addLaptop},
	{"GET /approve", member, (*Console).approvePage},
	{"POST /approve", member, (*Console).approve},
	{"POST /approve/deny", member, (*Console).deny},

	{"GET /network/keys", member, (*Console).keys},
	{"GET /network/keys/new", member, (*Console).newKey},
	{"POST /network/keys", member, (*Console).createKey},
	{"GET /network/keys/{id}/join", member, (*Console).join},
	{"POST /network/keys/{id}/revoke", member, (*Console).revokeKey},
	{"GET /dns", member, (*Console).moved},
	{"GET /keys", member, (*Console).moved},
	{"POST /keys", member, (*Console).createKey}, // of forms that were open while the server was replaced
	{"GET /keys/{rest...}", member, (*Console).moved},

	{"GET /settings", member, (*Console).settings},
	{"GET /settings/sign-in", member, (*Console).signInSettings},
	{"POST /settings/sign-in", member, (*Console).setDemanded},
	{"POST /settings/sign-in/passkeys", member, (*Console).setPasskeyDomain},
	{"GET /settings/sign-in/new", member, (*Console).newProvider},
	{"POST /settings/sign-in/new", member, (*Console).addProvider},
	{"GET /settings/sign-in/provider", member, (*Console).providerPage},
	{"POST /settings/sign-in/provider", member, (*Console).editProvider},
	{"POST /settings/sign-in/provider/remove", member, (*Console).removeProvider},
	{"GET /settings/webhooks", member, (*Console).webhooks},
	{"GET /settings/webhooks/new", member, (*Console).newWebhook},
	{"POST /settings/webhooks/new", member, (*Console).createWebhook},
	{"GET /settings/webhooks/{id}", member, (*Console).webhook},
	{"POST /settings/webhooks/{id}", member, (*Console).editWebhook},
	{"POST /settings/webhooks/{id}/enable", member, (*Console).enableWebhook},
	{"POST /settings/webhooks/{id}/disable", member, (*Console).disableWebhook},
	{"POST /settings/webhooks/{id}/test", member, (*Console).testWebhook},
	{"POST /settings/webhooks/{id}/rotate", member, (*Console).rotateWebhook},
	{"POST /settings/webhooks/{id}/delete", member, (*Console).deleteWebhook},
	{"GET /settings/tokens", member, (*Console).tokens},
	{"GET /settings/tokens/new", member, (*Console).newToken},
	{"POST /settings/tokens/new", member, (*Console).createToken},
	{"POST /settings/tokens/services", member, (*Console).createService},
	{"POST /settings/tokens/{id}/revoke", member, (*Console).revokeToken},
	{"GET /settings/releases", member, (*Console).releases},

	{"GET /activity", member, (*Console).activity},
	{"GET /activity/export", member, (*Console).exportActivity},
	{"GET /activity/newer", member, (*Console).newerActivity},
	{"GET /activity/verify", member, (*Console).verifyPage},
	{"POST /activity/verify", member, (*Console).verifyActivity},
	{"GET /activity/introductions", member, (*Console).introductions},
	{"POST /activity/introductions", member, (*Console).reportIntroductions},

	{"GET /people", member, (*Console).people},
	{"GET /people/invite", member, (*Console).invitePage},
	{"POST /people/invite", member, (*Console).invite},
	{"GET /people/person", member, (*Console).person},
	{"POST /people/person/edit", member, (*Console).editPerson},
	{"POST /people/person/groups", member, (*Console).setPersonsGroups},
	{"POST /people/person/suspend", member, (*Console).suspendPerson},
	{"POST /people/person/resume", member, (*Console).resumePerson},
	{"POST /people/person/invite", member, (*Console).inviteAgain},
	{"POST /people/person/revoke", member, (*Console).revokeInvitation},
	{"POST /people/person/delete", member, (*Console).deletePerson},
	{"GET /people/groups", member, (*Console).groups},
	{"POST /people/groups", member, (*Console).createGroup},
	{"POST /people/groups/delete", member, (*Console).deleteGroup},
	{"GET /people/waiting", member, (*Console).identities},
	{"POST /people/waiting/{id}/approve", member, (*Console).approvePerson},
	{"POST /people/waiting/{id}/deny", member, (*Console).denyPerson},

	{"GET /account", anyMember, (*Console).account},
	{"GET /account/codes/set-up", anyMember, (*Console).setUpTOTP},
	{"POST /account/codes", anyMember, (*Console).enableTOTP},
	{"POST /account/codes/off", member, (*Console).disableTOTP},
	{"POST /account/codes/recovery", member, (*Console).newCodes},
	{"POST /account/password", member, (*Console).changePassword},
	{"POST /account/passkeys/options", anyMember, (*Console).newPasskeyOptions},
	{"POST /account/passkeys", anyMember, (*Console).addPasskey},
	{"POST /account/passkeys/{id}/remove", member, (*Console).removePasskey},
	{"POST /account/sessions/{id}/end", anyMember, (*Console).endSession},
	{"POST /account/sessions/end-others", anyMember, (*Console).endOtherSessions},
}
