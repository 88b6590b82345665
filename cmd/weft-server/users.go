package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/store"
	"weft/coord/webapi/client"
)

func usersCmd() *cobra.Command {
	cmd := group("users", "List, create and delete users", usersListCmd(), usersCreateCmd(), usersDeleteCmd())
	cmd.Long = `Lists, creates and deletes users. A user signs in to the console with a link and
sees the devices and keys that belong to it; the network's owner sees all.

  weft-server users create alice
  weft-server login-link --user alice
  weft-server keys create --user alice`
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
				rows := [][]string{{"NAME", "ROLE", "CREATED"}}
				for _, u := range users {
					rows = append(rows, []string{u.Name, roleOf(u), when(&u.Created)})
				}
				return table(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func roleOf(u store.User) string {
	if u.Owner {
		return "owner"
	}
	return "member"
}

func usersCreateCmd() *cobra.Command {
	return userVerb("create NAME", "Create a user", "created the user %s; it signs in with the link of: weft-server login-link --user %[1]s\n",
		cobra.NoFileCompletions, (*client.Client).CreateUser)
}

func usersDeleteCmd() *cobra.Command {
	return userVerb("delete NAME", "Delete a user that owns no devices and no keys", "deleted the user %s\n",
		complete(func(ctx context.Context, c *client.Client) (words []string, err error) {
			users, err := c.Users(ctx)
			for _, u := range users {
				if !u.Owner {
					words = append(words, u.Name)
				}
			}
			return words, err
		}), (*client.Client).DeleteUser)
}

func userVerb(use, short, done string, words cobra.CompletionFunc, do func(*client.Client, context.Context, string) (store.User, error)) *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: words,
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				u, err := do(c, ctx, a[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "user/1", u)
				}
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "weft-server: "+done, u.Name)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
