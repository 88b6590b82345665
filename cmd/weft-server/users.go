package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

func usersCmd() *cobra.Command {
	cmd := group("users", "List, create, edit and delete users", usersListCmd(), usersCreateCmd(), usersEditCmd(), usersDeleteCmd(), usersResetCmd())
	cmd.Long = `Lists, creates, edits and deletes users: people, who sign in to the console with a
link, and services, which use the API with tokens. A member sees the devices and
keys that belong to it; an auditor sees everything; an operator also changes
devices and keys of everybody; an admin changes everything but owners.

  weft-server users create alice
  weft-server login-link --user alice
  weft-server keys create --user alice
  weft-server users create deploy --service --role operator --tag camera
  weft-server tokens create deploy`
	return cmd
}

func usersListCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the users by name",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				users, err := c.Users(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "users/1", map[string]any{"users": users})
				}
				rows := [][]string{{"NAME", "KIND", "ROLE", "CREATED"}}
				for _, u := range users {
					rows = append(rows, []string{u.Name, string(u.Kind), roleOf(u), when(&u.Created)})
				}
				return table(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// roleOf is what a user may do, and for which tags.
func roleOf(u webapi.User) string {
	if len(u.Tags) > 0 {
		return u.Role + " (" + strings.Join(u.Tags, ",") + ")"
	}
	return u.Role
}

// withRole gives a verb the flags of what a user may do.
func withRole(cmd *cobra.Command, role *string, tags *[]string) {
	cmd.Flags().StringVar(role, "role", "member", "what the user may do: admin, operator (devices and keys), auditor (reads everything) or member (own devices and keys)")
	cmd.Flags().StringSliceVar(tags, "tag", nil, "only for devices and keys with this tag (repeatable)")
	cmd.Flags().SetAnnotation("role", noEnv, nil)
	cmd.Flags().SetAnnotation("tag", noEnv, nil)
}

// roleNamed is the role of a name. The API would refuse another one too, in its own terms.
func roleNamed(name string) (ops.Role, error) {
	switch r := ops.Role(name); r {
	case ops.RoleAdmin, ops.RoleOperator, ops.RoleAuditor, ops.RoleMember:
		return r, nil
	case ops.RoleOwner:
		return "", usagef("--role owner: a network has one owner, and that stays so; want admin, operator, auditor or member")
	}
	return "", usagef("--role %q: want admin, operator, auditor or member", name)
}

func usersCreateCmd() *cobra.Command {
	var u ops.CreateUser
	var role string
	cmd := userVerb("create NAME [--service] [--role ROLE] [--tag T]...", "Create a user", cobra.NoFileCompletions,
		func(c *client.Client, ctx context.Context, name string) (webapi.User, string, error) {
			r, err := roleNamed(role)
			if err != nil {
				return webapi.User{}, "", err
			}
			u.Name, u.Role = name, r
			made, err := c.CreateUser(ctx, u)
			next := "make a sign-in link with: weft-server login-link --user " + made.Name
			if u.Service {
				next = "make a token for the API with: weft-server tokens create " + made.Name
			}
			return made, fmt.Sprintf("created the user %s, %s; %s", made.Name, roleOf(made), next), err
		})
	cmd.Flags().BoolVar(&u.Service, "service", false, "the user is a program, which uses the API")
	cmd.Flags().SetAnnotation("service", noEnv, nil)
	withRole(cmd, &role, &u.Tags)
	return cmd
}

func usersEditCmd() *cobra.Command {
	var role string
	var tags []string
	var cmd *cobra.Command
	cmd = userVerb("edit NAME [--role ROLE] [--tag T]...", "Change what a user may do, with immediate effect", complete(mortals),
		func(c *client.Client, ctx context.Context, name string) (webapi.User, string, error) {
			var e ops.EditUser
			if cmd.Flags().Changed("role") {
				r, err := roleNamed(role)
				if err != nil {
					return webapi.User{}, "", err
				}
				e.Role = &r
			}
			if cmd.Flags().Changed("tag") {
				e.Tags = &tags
			}
			if e.Role == nil && e.Tags == nil {
				return webapi.User{}, "", usagef("name what to change: --role ROLE, or --tag T for each tag (--tag= for none)")
			}
			u, err := c.EditUser(ctx, name, e)
			return u, fmt.Sprintf("the user %s is now: %s", u.Name, roleOf(u)), err
		})
	withRole(cmd, &role, &tags)
	return cmd
}

// mortals are the names of all users but the network's owner, for completion.
func mortals(ctx context.Context, c *client.Client) (words []string, err error) {
	users, err := c.Users(ctx)
	for _, u := range users {
		if !u.Owner {
			words = append(words, u.Name)
		}
	}
	return words, err
}

func usersDeleteCmd() *cobra.Command {
	return userVerb("delete NAME", "Delete a user that owns no devices and no keys; its tokens end", complete(mortals),
		func(c *client.Client, ctx context.Context, name string) (webapi.User, string, error) {
			u, err := c.DeleteUser(ctx, name)
			return u, "deleted the user " + u.Name, err
		})
}

func usersResetCmd() *cobra.Command {
	return userVerb("reset-second-factor NAME", "Take from a user what is asked for beside the password, for who has lost it", complete(func(ctx context.Context, c *client.Client) (words []string, err error) {
		users, err := c.Users(ctx)
		for _, u := range users {
			words = append(words, u.Name)
		}
		return words, err
	}), func(c *client.Client, ctx context.Context, name string) (webapi.User, string, error) {
		u, err := c.ResetSecondFactor(ctx, name)
		return u, u.Name + " signs in with the password alone, and is signed out everywhere", err
	})
}

// userVerb is a verb about one user. do returns what to say about what was done.
func userVerb(use, short string, words cobra.CompletionFunc, do func(*client.Client, context.Context, string) (webapi.User, string, error)) *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: words,
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				u, done, err := do(c, ctx, a[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "user/1", u)
				}
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: "+done)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
