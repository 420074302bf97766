package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/client"
)

func ExampleClient_Send() {
	c, err := client.New(client.Config{URL: "https://ledger.example.com", Token: os.Getenv("LEDGER_TOKEN"), Source: "/crm/reactions"})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	recorded, err := c.Send(context.Background(), client.Event{
		ID: "order-17-reward", // given when it is made, and kept until it is recorded
		Data: domain.ReactionFired{
			Reaction: "reward-earned", Target: "klaviyo-reward-earned", Cause: "reaction",
			ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), Context: json.RawMessage(`{"reward": {"amount": 10}}`),
		},
	})
	switch {
	case errors.Is(err, client.ErrRefused):
		fmt.Println("mend it:", err)
	case err != nil:
		fmt.Println("keep it, and send it again:", err)
	default:
		fmt.Println("recorded at", recorded[0].Position)
	}
}
