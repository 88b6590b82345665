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
	var asJSON *bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the providers", Args: args(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				list, err := c.Providers(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "oidc-providers/1", map[string]any{"providers": list})
				}
				rows := [][]string{{"NAME", "TITLE", "ISSUER", "CLIENT", "APPROVES"}}
				for _, p := range list {
					rows = append(rows, []string{p.ID, p.Title, p.Issuer, p.ClientID, admits(p)})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
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
	var cmd *cobra.Command
	cmd = providerVerb(use, short, said, func() error {
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
	}, func(ctx context.Context, c *client.Client, id string) (webapi.Provider, error) {
		p.ID = id
		if add {
			return c.CreateProvider(ctx, p)
		}
		return c.EditProvider(ctx, p)
	})
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
	return providerVerb("remove NAME", "Remove a provider, and end the sessions that began there", "the provider %s is removed, and the sessions that began there have ended", nil,
		func(ctx context.Context, c *client.Client, id string) (webapi.Provider, error) {
			return c.DeleteProvider(ctx, id)
		})
}

// providerVerb makes a verb about a provider. said is the format of the message after success,
// with a %s for the provider's id.
func providerVerb(use, short, said string, check func() error, do func(context.Context, *client.Client, string) (webapi.Provider, error)) *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(func(ctx context.Context, c *client.Client) (words []string, err error) {
			list, err := c.Providers(ctx)
			for _, p := range list {
				words = append(words, p.ID)
			}
			return words, err
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			if check != nil {
				if err := check(); err != nil {
					return err
				}
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				p, err := do(ctx, c, a[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "oidc-provider/1", p)
				}
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "weft-server: "+said+"\n", p.ID)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func oidcPeopleCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use: "people", Short: "List who waits for approval, and who was approved", Args: args(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				list, err := c.Identities(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "oidc-people/1", map[string]any{"identities": list})
				}
				rows := [][]string{{"ID", "PROVIDER", "SUBJECT", "NAME", "MAIL", "USER", "LAST SEEN"}}
				for _, i := range list {
					user := i.User
					if user == "" {
						user = "(waits)"
					}
					rows = append(rows, []string{i.ID, i.Provider, i.Subject, i.Name, i.Mail, user, when(&i.Seen)})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func oidcApproveCmd() *cobra.Command {
	var user string
	cmd := identityVerb("approve ID [--user NAME]", "Approve a person who waits", "%s is approved: weft-server oidc people says as which user", func(ctx context.Context, c *client.Client, id string) (store.Identity, error) {
		return c.ApproveIdentity(ctx, id, user)
	})
	cmd.Flags().StringVar(&user, "user", "", "the user that the person becomes, who is made if there is none (default: a new user with a name like the one at the provider)")
	cmd.Flags().SetAnnotation("user", noEnv, nil)
	return cmd
}

func oidcDenyCmd() *cobra.Command {
	return identityVerb("deny ID", "Delete a person's identity, waiting or approved, and sign the person out", "%s is forgotten", func(ctx context.Context, c *client.Client, id string) (store.Identity, error) {
		return c.DenyIdentity(ctx, id)
	})
}

// identityVerb makes a verb about an identity. said is the format of the message after success,
// with a %s for the person's name at the provider.
func identityVerb(use, short, said string, do func(context.Context, *client.Client, string) (store.Identity, error)) *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(func(ctx context.Context, c *client.Client) (words []string, err error) {
			list, err := c.Identities(ctx)
			for _, i := range list {
				words = append(words, i.ID)
			}
			return words, err
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				i, err := do(ctx, c, a[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "oidc-person/1", i)
				}
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "weft-server: "+said+"\n", cli.Plain(cmp.Or(i.Name, i.ID)))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
