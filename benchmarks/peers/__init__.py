"""Other ext_authz servers, measured in turn with ours."""
