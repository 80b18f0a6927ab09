"""S3E-GNN: camera relocalization from a graph of learned scene embeddings (Cheng et al.)."""
