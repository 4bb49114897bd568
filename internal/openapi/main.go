// Openapi writes the description of the API in the format of OpenAPI 3.1, as the operations of
// package httpapi have it.
//
//	go generate ./internal/httpapi ./internal/openapi/client
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: openapi FILE")
		os.Exit(2)
	}
	b, err := encode()
	if err == nil {
		err = os.WriteFile(os.Args[1], b, 0o644) //nolint:gosec // it is served to anyone
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// encode returns the description as the file has it.
func encode() ([]byte, error) {
	d, err := describe()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
