package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/qr"
	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

func usersCmd() *cobra.Command {
	cmd := group("users", "List, invite, create, edit, suspend and delete users", usersListCmd(), usersInviteCmd(), usersUninviteCmd(), usersCreateCmd(), usersEditCmd(), usersSuspendCmd(), usersResumeCmd(), usersDeleteCmd(), usersResetCmd())
	cmd.Long = `Lists, invites, creates, edits, suspends and deletes users: people, who sign in to the console with a
link, and services, which use the API with tokens. A member sees the devices and
keys that it owns; an auditor sees everything; an operator also changes
devices and keys of everybody; an admin changes everything but owners; an owner
changes everything. The last owner stays.

The name of a user is in certificates and in the policy: it never changes, and nobody
gets it again. What people read is the display name.

  weft-server users invite alice --display-name "Alice Björk"
  weft-server keys create --user alice
  weft-server users create deploy --service --role operator --tag camera
  weft-server tokens create deploy
  weft-server users suspend alice
  weft-server users delete alice --devices-to bob`
	return cmd
}

func usersListCmd() *cobra.Command {
	return apiVerb{
		use: "list", short: "List the users by name",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			users, err := c.Users(ctx)
			rows := [][]string{{"NAME", "DISPLAY NAME", "KIND", "ROLE", "STATE", "DEVICES", "LAST SIGN-IN", "CREATED"}}
			for _, u := range users {
				rows = append(rows, []string{u.Name, u.DisplayName, string(u.Kind), roleOf(u.User), userState(u), strconv.Itoa(u.Devices), when(u.SignedIn), when(&u.Created)})
			}
			return answer{schema: "users/1", object: map[string]any{"users": users}, out: table(rows)}, err
		},
	}.command()
}

// roleOf returns a user's role, with the tags to which it is limited.
func roleOf(u webapi.User) string {
	if len(u.Tags) > 0 {
		return u.Role + " (" + strings.Join(u.Tags, ",") + ")"
	}
	return u.Role
}

// userState returns a word for whether a user can sign in.
func userState(u webapi.UserRow) string {
	switch {
	case u.Suspended != nil:
		return "suspended"
	case u.Invited != nil:
		return "invited until " + when(u.Invited)
	}
	return "active"
}

// withDisplayName adds the flag --display-name to a verb.
func withDisplayName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "display-name", "", "what people call the user, in any letters")
	cmd.Flags().SetAnnotation("display-name", noEnv, nil)
}

// withRole adds the flags --role and --tag to a verb.
func withRole(cmd *cobra.Command, role *string, tags *[]string) {
	cmd.Flags().StringVar(role, "role", "member", "what the user may do: owner (everything), admin (everything but owners), operator (devices and keys), auditor (reads everything) or member (own devices and keys)")
	cmd.Flags().StringSliceVar(tags, "tag", nil, "only for devices and keys with this tag (repeatable)")
	cmd.Flags().SetAnnotation("role", noEnv, nil)
	cmd.Flags().SetAnnotation("tag", noEnv, nil)
}

// roleNamed returns the role with a name. It refuses unknown names itself, because the API's
// error would not name the flag.
func roleNamed(name string) (ops.Role, error) {
	switch r := ops.Role(name); r {
	case ops.RoleOwner, ops.RoleAdmin, ops.RoleOperator, ops.RoleAuditor, ops.RoleMember:
		return r, nil
	}
	return "", usagef("--role %q: want owner, admin, operator, auditor or member", name)
}

func usersCreateCmd() *cobra.Command {
	var u ops.CreateUser
	var role string
	cmd := apiVerb{
		use: "create NAME [--service] [--role ROLE] [--tag T]...", short: "Create a user", args: cobra.ExactArgs(1), words: cobra.NoFileCompletions,
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			r, err := roleNamed(role)
			if err != nil {
				return answer{}, err
			}
			u.Name, u.Role = a[0], r
			made, err := c.CreateUser(ctx, u)
			next := "invite this person with: weft-server users invite " + made.Name
			if u.Service {
				next = "make a token for the API with: weft-server tokens create " + made.Name
			}
			return userChanged(made, "created the user %s, %s; %s", made.Name, roleOf(made), next), err
		},
	}.command()
	cmd.Flags().BoolVar(&u.Service, "service", false, "the user is a program, which uses the API")
	cmd.Flags().SetAnnotation("service", noEnv, nil)
	withDisplayName(cmd, &u.DisplayName)
	withRole(cmd, &role, &u.Tags)
	return cmd
}

// userChanged is the answer of a verb that changed a user.
func userChanged(u webapi.User, said string, args ...any) answer {
	return answer{schema: "user/1", object: u, said: "weft-server: " + fmt.Sprintf(said, args...)}
}

func usersInviteCmd() *cobra.Command {
	var in ops.InviteUser
	var role, expires string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "invite NAME [--role ROLE] [--tag T]... [--expires 7d]",
		Short: "Invite a person with a link that works once",
		Long: `Invites a new person, or a user who has never signed in. It prints a link, and on a
terminal the same as a QR code on standard error. The person who opens it
chooses a password or a passkey, and is signed in. Opening the link alone does not use
it up.

The link works once. It ends after --expires, with users revoke-invitation, with the next invitation
of the same person, and while whoever made it is suspended or may not give that role.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, a []string) error {
			in.Name = a[0]
			var err error
			if cmd.Flags().Changed("role") { // without the flag an existing user keeps the role
				if in.Role, err = roleNamed(role); err != nil {
					return err
				}
			}
			if in.Life, err = parseLife(expires); err != nil {
				return err
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				made, err := c.InviteUser(ctx, in)
				if err != nil {
					return err
				}
				data, err := dataDir(cmd)
				if err != nil {
					return err
				}
				s, err := signInOf(ctx, c, data, made.URL)
				if err != nil {
					return err
				}
				link := cmp.Or(s.public, s.link)
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "invitation/1", map[string]any{"user": made.User, "url": link, "expires": made.Expires, "fingerprint": s.fingerprint})
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), link); err != nil {
					return err
				}
				out := cmd.ErrOrStderr()
				if cli.IsTerminal(out) {
					if code, err := qr.Encode(link); err == nil {
						fmt.Fprintln(out, code.Terminal())
					}
				}
				fmt.Fprintf(out, "weft-server: invited %s, %s; give this link to nobody else: it works once, until %s\n", made.User.Name, roleOf(made.User), when(&made.Expires))
				s.public = "" // that link has been printed already
				fmt.Fprint(out, s.explain())
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "7d", "how long it can be used: 1m to 30d")
	cmd.Flags().SetAnnotation("expires", noEnv, nil)
	withDisplayName(cmd, &in.DisplayName)
	withRole(cmd, &role, &in.Tags)
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func usersUninviteCmd() *cobra.Command {
	return apiVerb{
		use: "revoke-invitation NAME", short: "End the invitation of a user, who stays and can be invited again", args: cobra.ExactArgs(1), words: complete(userNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			u, err := c.RevokeInvitation(ctx, a[0])
			return userChanged(u, "no invitation of %s works any more; to remove the user too: weft-server users delete %[1]s", u.Name), err
		},
	}.command()
}

func usersEditCmd() *cobra.Command {
	var role, display string
	var tags []string
	var cmd *cobra.Command
	var e ops.EditUser
	cmd = apiVerb{
		use:   "edit NAME [--role ROLE] [--tag T]... [--display-name TEXT] [--add-group G]... [--remove-group G]...",
		short: "Change what a user may do, with immediate effect, its display name and its groups",
		args:  cobra.ExactArgs(1),
		words: complete(userNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			if cmd.Flags().Changed("role") {
				r, err := roleNamed(role)
				if err != nil {
					return answer{}, err
				}
				e.Role = &r
			}
			if cmd.Flags().Changed("tag") {
				e.Tags = &tags
			}
			if cmd.Flags().Changed("display-name") {
				e.DisplayName = &display
			}
			if e.Role == nil && e.Tags == nil && e.DisplayName == nil && len(e.AddGroups)+len(e.RemoveGroups) == 0 {
				return answer{}, usagef("name what to change: --role ROLE, --tag T for each tag (--tag= for none), --display-name TEXT, --add-group G or --remove-group G")
			}
			u, err := c.EditUser(ctx, a[0], e)
			said := roleOf(u)
			if u.DisplayName != "" {
				said += ", called " + cli.Plain(u.DisplayName)
			}
			return userChanged(u, "the user %s is now: %s", u.Name, said), err
		},
	}.command()
	withDisplayName(cmd, &display)
	withRole(cmd, &role, &tags)
	cmd.Flags().StringSliceVar(&e.AddGroups, "add-group", nil, "group, made here, to put the person into (repeatable)")
	cmd.Flags().StringSliceVar(&e.RemoveGroups, "remove-group", nil, "group to take the person out of (repeatable)")
	cmd.Flags().SetAnnotation("add-group", noEnv, nil)
	cmd.Flags().SetAnnotation("remove-group", noEnv, nil)
	return cmd
}

// userNames returns the names of all users, for completion.
func userNames(ctx context.Context, c *client.Client) (words []string, err error) {
	users, err := c.Users(ctx)
	for _, u := range users {
		words = append(words, u.Name)
	}
	return words, err
}

func usersSuspendCmd() *cobra.Command {
	return apiVerb{
		use:   "suspend NAME",
		short: "Suspend a user until it is resumed: it is signed out everywhere, and its devices without tags reach nothing",
		args:  cobra.ExactArgs(1),
		words: complete(userNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			u, err := c.SuspendUser(ctx, a[0])
			return userChanged(u, "%s is suspended: signed out, with tokens and keys refused, also those made for others; devices without tags reach nothing; to end that: weft-server users resume %[1]s", u.Name), err
		},
	}.command()
}

func usersResumeCmd() *cobra.Command {
	return apiVerb{
		use: "resume NAME", short: "End the suspension of a user", args: cobra.ExactArgs(1), words: complete(userNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			u, err := c.ResumeUser(ctx, a[0])
			return userChanged(u, "%s may do again what %s may, after signing in anew", u.Name, withArticle(u.Role)), err
		},
	}.command()
}

func withArticle(role string) string {
	if strings.HasPrefix(role, "o") || strings.HasPrefix(role, "a") {
		return "an " + role
	}
	return "a " + role
}

func usersDeleteCmd() *cobra.Command {
	var d ops.DeleteUser
	cmd := apiVerb{
		use:   "delete NAME [--devices-to OTHER | --delete-devices]",
		short: "Delete a user; its tokens end, and nobody gets its name again",
		args:  cobra.ExactArgs(1),
		words: complete(userNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			if d.DevicesTo != "" && d.DeleteDevices {
				return answer{}, usagef("--devices-to and --delete-devices exclude each other")
			}
			d.Name = a[0]
			u, err := c.DeleteUser(ctx, d)
			said := "weft-server: deleted the user " + u.Name
			switch {
			case u.Devices+u.Keys == 0:
			case d.DeleteDevices:
				said += fmt.Sprintf(", with %s and %s", count(u.Devices, "device"), count(u.Keys, "key"))
			default:
				said += fmt.Sprintf("; %s has got %s, and revoked: %s", cli.Plain(d.DevicesTo), count(u.Devices, "device"), count(u.Keys, "key"))
			}
			for _, w := range u.Warnings {
				said += "\nweft-server: the policy still names " + u.Name + ": " + w
			}
			return answer{schema: "user/1", object: u, said: said}, err
		},
	}.command()
	cmd.Flags().StringVar(&d.DevicesTo, "devices-to", "", "who gets the devices; they get new certificates, and the keys are revoked")
	cmd.Flags().BoolVar(&d.DeleteDevices, "delete-devices", false, "delete the devices and keys too")
	for _, flag := range []string{"devices-to", "delete-devices"} {
		cmd.Flags().SetAnnotation(flag, noEnv, nil)
	}
	return cmd
}

func usersResetCmd() *cobra.Command {
	return apiVerb{
		use: "reset-second-factor NAME", short: "Remove the passkeys and codes of a user who lost them", args: cobra.ExactArgs(1), words: complete(userNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			u, err := c.ResetSecondFactor(ctx, a[0])
			return userChanged(u, "%s signs in with the password alone, and is signed out everywhere", u.Name), err
		},
	}.command()
}
