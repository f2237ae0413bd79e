"""The providers' own SDKs, pointed at the sidecar: nothing that it adds may harm them."""
