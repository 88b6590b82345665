package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

func oidcCmd() *cobra.Command {
	cmd := group("oidc", "Have people sign in at OpenID providers", oidcListCmd(), oidcSetCmd(true), oidcSetCmd(false), oidcRemoveCmd(), oidcPeopleCmd(), oidcApproveCmd(), oidcDenyCmd())
	cmd.Long = `Has people sign in to the console at OpenID providers, several at once. A person
is identified by issuer and subject, never by the mail address. A new person waits for
approval, unless a claim approves them.

  weft-server oidc add work --issuer https://accounts.example.org --client-id weft --secret-file F
  weft-server oidc edit work --admit groups=weft-users --groups-claim groups
  weft-server oidc people            who waits, and who was approved
  weft-server oidc approve ID --user alice

The provider is told the address https://HOST/sign-in/with/NAME/answer.`
	return cmd
}

func oidcListCmd() *cobra.Command {
	return apiVerb{
		use: "list", short: "List the providers",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.Providers(ctx)
			rows := [][]string{{"NAME", "TITLE", "ISSUER", "CLIENT", "APPROVES"}}
			for _, p := range list {
				rows = append(rows, []string{p.ID, p.Title, p.Issuer, p.ClientID, admits(p)})
			}
			return answer{schema: "oidc-providers/1", object: map[string]any{"providers": list}, out: table(rows)}, err
		},
	}.command()
}

func admits(p webapi.Provider) string {
	if p.AdmitClaim == "" {
		return "after approval"
	}
	return p.AdmitClaim + "=" + p.AdmitValue
}

func oidcSetCmd(add bool) *cobra.Command {
	var p ops.SetProvider
	var title, issuer, id, secretFile, scopes, groups, name, admit string
	use, short, said := "add NAME --issuer URL --client-id ID [--secret-file F|-]", "Add a provider", "people can sign in at %s now; the others that it lets wait: weft-server oidc people"
	if !add {
		use, short, said = "edit NAME [--issuer URL]...", "Change a provider; what is not named stays", "the provider %s is changed"
	}
	cmd := apiVerb{
		use: use, short: short, args: cobra.ExactArgs(1), words: complete(providerNames),
		check: func(cmd *cobra.Command, _ []string) error {
			for flag, f := range map[string]struct {
				from *string
				to   **string
			}{"title": {&title, &p.Title}, "issuer": {&issuer, &p.Issuer}, "client-id": {&id, &p.ClientID}, "scopes": {&scopes, &p.Scopes}, "groups-claim": {&groups, &p.GroupsClaim}, "name-claim": {&name, &p.NameClaim}} {
				if cmd.Flags().Changed(flag) {
					*f.to = f.from
				}
			}
			if cmd.Flags().Changed("admit") {
				claim, value, ok := strings.Cut(admit, "=")
				if admit != "" && (!ok || claim == "" || value == "") {
					return usagef("--admit %q: want CLAIM=VALUE, such as groups=weft-users, or nothing for nobody", cli.Plain(admit))
				}
				p.AdmitClaim, p.AdmitValue = &claim, &value
			}
			if secretFile == "" {
				return nil
			}
			secret, err := readSecret(cmd.InOrStdin(), secretFile)
			p.Secret = &secret
			return err
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			p.ID = a[0]
			set := c.EditProvider
			if add {
				set = c.CreateProvider
			}
			now, err := set(ctx, p)
			return answer{schema: "oidc-provider/1", object: now, said: "weft-server: " + fmt.Sprintf(said, now.ID)}, err
		},
	}.command()
	f := cmd.Flags()
	f.StringVar(&title, "title", "", "what the button says (default NAME)")
	f.StringVar(&issuer, "issuer", "", "the provider's address, as it calls itself")
	f.StringVar(&id, "client-id", "", "what this server is called there")
	f.StringVar(&secretFile, "secret-file", "", "file with the client's secret, or - for standard input")
	f.StringVar(&scopes, "scopes", "", `what to ask for in addition to openid (default "profile email"); with offline_access sessions last while the provider extends them, else 12 hours`)
	f.StringVar(&groups, "groups-claim", "", "claim with the groups of a person")
	f.StringVar(&name, "name-claim", "", "claim after which a new user is called (default preferred_username)")
	f.StringVar(&admit, "admit", "", "CLAIM=VALUE: people with that claim need no approval")
	for _, flag := range []string{"title", "issuer", "client-id", "secret-file", "scopes", "groups-claim", "name-claim", "admit"} {
		f.SetAnnotation(flag, noEnv, nil)
	}
	return cmd
}

// readSecret reads a secret, which is the only line of a file, or of standard input for "-".
func readSecret(stdin io.Reader, path string) (string, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read the secret: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, 4096))
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func oidcRemoveCmd() *cobra.Command {
	return apiVerb{
		use: "remove NAME", short: "Remove a provider, and end the sessions that began there", args: cobra.ExactArgs(1), words: complete(providerNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			p, err := c.DeleteProvider(ctx, a[0])
			return answer{schema: "oidc-provider/1", object: p, said: fmt.Sprintf("weft-server: the provider %s is removed, and the sessions that began there have ended", p.ID)}, err
		},
	}.command()
}

// providerNames returns the names of the providers, for completion.
func providerNames(ctx context.Context, c *client.Client) (words []string, err error) {
	list, err := c.Providers(ctx)
	for _, p := range list {
		words = append(words, p.ID)
	}
	return words, err
}

func oidcPeopleCmd() *cobra.Command {
	return apiVerb{
		use: "people", short: "List who waits for approval, and who was approved",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.Identities(ctx)
			rows := [][]string{{"ID", "PROVIDER", "SUBJECT", "NAME", "MAIL", "USER", "LAST SEEN"}}
			for _, i := range list {
				rows = append(rows, []string{i.ID, i.Provider, i.Subject, i.Name, i.Mail, cmp.Or(i.User, "(waits)"), when(&i.Seen)})
			}
			return answer{schema: "oidc-people/1", object: map[string]any{"identities": list}, out: table(rows)}, err
		},
	}.command()
}

func oidcApproveCmd() *cobra.Command {
	var user string
	cmd := apiVerb{
		use: "approve ID [--user NAME]", short: "Approve a person who waits", args: cobra.ExactArgs(1), words: complete(identityIDs),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			i, err := c.ApproveIdentity(ctx, a[0], user)
			return identityChanged(i, "is approved: weft-server oidc people says as which user"), err
		},
	}.command()
	cmd.Flags().StringVar(&user, "user", "", "the user that the person becomes, who is made if there is none (default: a new user with a name like the one at the provider)")
	cmd.Flags().SetAnnotation("user", noEnv, nil)
	return cmd
}

func oidcDenyCmd() *cobra.Command {
	return apiVerb{
		use: "deny ID", short: "Delete a person's identity, waiting or approved, and sign the person out", args: cobra.ExactArgs(1), words: complete(identityIDs),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			i, err := c.DenyIdentity(ctx, a[0])
			return identityChanged(i, "is forgotten"), err
		},
	}.command()
}

// identityIDs returns the ids of all identities, for completion.
func identityIDs(ctx context.Context, c *client.Client) (words []string, err error) {
	list, err := c.Identities(ctx)
	for _, i := range list {
		words = append(words, i.ID)
	}
	return words, err
}

// identityChanged is the answer of a verb that changed an identity. It says what was done after
// the person's name at the provider.
func identityChanged(i store.Identity, done string) answer {
	return answer{schema: "oidc-person/1", object: i, said: fmt.Sprintf("weft-server: %s %s", cli.Plain(cmp.Or(i.Name, i.ID)), done)}
}
